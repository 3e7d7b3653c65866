"""A simulated Teleport cluster: real TLS and real gRPC, with events of its own making, for the demo and the tests."""
