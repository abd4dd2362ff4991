"""What a caller gets: progress, picture files and what they say about themselves."""
