"""Measures of pictures: agreement with a text, and distance to the look of a set."""
