"""What is installed on machines, and in clusters."""
