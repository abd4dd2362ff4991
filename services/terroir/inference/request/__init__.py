"""What a caller asks for: read, checked and completed."""
