"""Forwards the audit events and session recordings of a Teleport cluster to a log collector."""

__version__ = "0.1.0"
