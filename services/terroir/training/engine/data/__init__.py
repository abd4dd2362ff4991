"""The data side of training: from picture files and captions to the batches of every step."""
