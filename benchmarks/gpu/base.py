"""Pipelines of Stable Diffusion 1.5's classes and shapes with random weights; nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from terroir.tiny import random_pipeline
from terroir.tiny.tokenizer import build_tokenizer

_TOKENS = 77
_CROSS, _CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"


@dataclass(frozen=True)
class Widths:
    """Channels of SD 1.5's components; blocks and layers are always its own."""

    denoiser: int
    """Of the first block, a multiple of 32; the others have 2, 4 and 4 times as many."""
    vae: int
    """Likewise."""
    text: int
    """A multiple of 64, a head's width."""


SD15: Final = Widths(denoiser=320, vae=128, text=768)
"""859.5 M parameters in the denoiser, CLIP ViT-L/14's text tower."""
QUARTER: Final = Widths(denoiser=96, vae=32, text=192)
"""About a quarter of every width, of the denoiser a little more."""


def build_sd15(folder: Path, widths: Widths = SD15, dtype: torch.dtype = torch.float16) -> Path:
    """SD 1.5's own configuration, or that at another width, as a diffusers folder.

    Random weights draw noise; time and memory are those of trained ones.
    """
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = _TOKENS
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel(
                sample_size=64, in_channels=4, out_channels=4, layers_per_block=2, cross_attention_dim=widths.text,
                block_out_channels=_blocks(widths.denoiser), attention_head_dim=8,
                down_block_types=(_CROSS, _CROSS, _CROSS, "DownBlock2D"),
                up_block_types=("UpBlock2D", _CROSS_UP, _CROSS_UP, _CROSS_UP),
            ),
            "vae": AutoencoderKL(
                latent_channels=4, layers_per_block=2, block_out_channels=_blocks(widths.vae), sample_size=512,
                down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                scaling_factor=0.18215,
            ),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(tokenizer), hidden_size=widths.text, intermediate_size=4 * widths.text,
                    num_hidden_layers=12, num_attention_heads=widths.text // 64, max_position_embeddings=_TOKENS,
                    projection_dim=widths.text,
                    bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            ),
        }  # fmt: skip
    stored = {name: part.to(dtype) for name, part in parts.items()}
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        tokenizer=tokenizer, scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False, **stored,
    )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _blocks(first: int) -> tuple[int, int, int, int]:
    return first, 2 * first, 4 * first, 4 * first


def build_small(folder: Path) -> Path:
    """The tiny base's classes: the same code within seconds on a CPU."""
    return random_pipeline.build(folder)
