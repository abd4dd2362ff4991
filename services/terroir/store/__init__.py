"""The object store: the only state of terroir. Blobs by digest, documents by number, conditional writes."""
