"""Training on this machine without any server."""
