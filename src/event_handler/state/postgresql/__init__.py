"""State in PostgreSQL: for several replicas, and without a disk of one's own."""
