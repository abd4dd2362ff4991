"""The report of a run: one HTML file with curves, samples, verdict and evidence."""
