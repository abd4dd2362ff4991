"""The drawn world: what the tiny base learns, and the looks of the example styles."""
