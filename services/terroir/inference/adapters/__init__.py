"""Adapters from registry to device: names, tiers, watch, prefetching, and what a request wears."""
