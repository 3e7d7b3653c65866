"""The ways into a simulated cluster: a Proxy with its web port and tunnel, and a load balancer that ends TLS."""
