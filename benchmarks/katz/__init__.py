"""Load shaped like the trace that Katz published (arXiv 2407.02031): thousands of adapters, one or two a request."""
