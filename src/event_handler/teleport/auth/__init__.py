"""Who we are: identities, key pairs, TLS contexts, and their renewal."""
