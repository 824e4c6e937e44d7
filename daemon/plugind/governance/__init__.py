"""What keeps plugins from running, and ends those that run."""
