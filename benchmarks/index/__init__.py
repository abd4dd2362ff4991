"""The registry's index with 100,000 adapters: how it starts, and how it answers."""
