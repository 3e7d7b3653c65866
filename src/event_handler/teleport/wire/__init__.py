"""Wire bytes: the messages that are written, and those that are read."""
