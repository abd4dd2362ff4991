"""One attempt at a job, on Ray: its driver, its workers and what they leave in the object store."""
