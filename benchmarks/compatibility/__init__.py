"""Calibration of the interference score on generated pictures: `python -m benchmarks.compatibility`."""
