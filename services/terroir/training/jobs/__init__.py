"""Jobs and their queue: documents in the object store, what may be submitted, and whose turn it is."""
