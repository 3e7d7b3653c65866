"""What several tests need: recorded events, states, stand-ins."""
