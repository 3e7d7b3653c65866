"""Calls to the cluster, over one gRPC connection."""
