"""Samples, scores and verdicts of a run's checkpoints, all drawn the way the inference service draws."""
