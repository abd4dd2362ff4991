"""What every replica keeps in memory: the fold of all documents, searched, watched, and kept fresh by the journal."""
