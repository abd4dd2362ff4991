"""The drawing engine: a process of its own behind plain values, so that the gRPC process never imports torch."""
