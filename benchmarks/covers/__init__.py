"""Covers on a real MinIO, a real registry and a real engine: how soon they answer, and what drawing them costs."""
