"""The pipeline into a sink: select, batch, deliver, acknowledge, remember."""
