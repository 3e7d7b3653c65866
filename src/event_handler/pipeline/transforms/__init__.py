"""Steps between dedup and batch that change an event for one sink: one module each, chosen by name."""
