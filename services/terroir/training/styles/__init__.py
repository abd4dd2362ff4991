"""One call that registers a style: a registration leads pictures through the dataset, a job and the registry."""
