"""What must survive a restart: positions, delivered ids, waiting recordings, dead letters."""
