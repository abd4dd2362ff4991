"""The diffusers pipeline, piece by piece: text, first latents, samplers, denoiser, VAE."""
