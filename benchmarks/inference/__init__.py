"""Figures of the inference server, one file a group."""
