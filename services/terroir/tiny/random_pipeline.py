"""A pipeline of the tiny base's classes with random weights: what tests use where weights do not matter."""

from __future__ import annotations

from pathlib import Path

import torch

from terroir.tiny.architecture import build_text_encoder, build_unet, build_vae, save_pipeline
from terroir.tiny.tokenizer import build_tokenizer


def build(folder: Path, seed: int = 0) -> Path:
    """Write a diffusers folder with weights drawn from `seed`; returns `folder`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = build_tokenizer()
        save_pipeline(
            folder,
            vae=build_vae(),
            unet=build_unet(),
            text_encoder=build_text_encoder(tokenizer),
            tokenizer=tokenizer,
        )
    return folder
