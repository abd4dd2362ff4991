"""A simulated week of the training queue: invented jobs and faults, and the scheduling policy that really decides."""
