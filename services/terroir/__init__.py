"""Terroir: regional style LoRA adapters, from pictures to covers, as gRPC services."""
