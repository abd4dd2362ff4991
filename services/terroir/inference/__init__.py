"""Inference service: pictures from prompts, in stacked styles."""
