"""Destinations, one module each; none knows where the events come from."""
