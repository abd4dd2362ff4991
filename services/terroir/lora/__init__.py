"""Adapter files and their algebra: bytes in, bytes out; numpy only, no gRPC, no I/O of its own."""
