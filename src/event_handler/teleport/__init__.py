"""The cluster client: credentials, the way in, the calls, and the conversion of events."""
