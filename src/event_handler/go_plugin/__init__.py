"""Everything that reads or writes the files of the Go plugin."""
