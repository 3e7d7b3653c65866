"""Builds the pipelines, keeps them running, and holds the session with the cluster."""
