"""Where a component reports what happened: logs."""
