"""The engines on a GPU, on weights of Stable Diffusion 1.5's shape: `make bench-gpu`."""
