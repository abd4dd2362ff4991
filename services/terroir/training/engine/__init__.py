"""The training engine: a pure library that knows neither Ray nor gRPC nor where anything is stored."""
