"""The line from a source to a sink: select, batch, deliver, acknowledge, remember."""
