"""What a pod asks of the API server of its cluster."""
