"""Stable Diffusion 1.5 and SDXL at full width, and tiny pipelines of the same classes, all without downloads."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from terroir.tiny.tokenizer import build_tokenizer

_CROSS = "CrossAttnDownBlock2D"
_CROSS_UP = "CrossAttnUpBlock2D"


def sd15() -> tuple[nn.Module, nn.Module]:
    """U-Net and text encoder on the meta device: shapes and no memory."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64,
            in_channels=4,
            out_channels=4,
            block_out_channels=(320, 640, 1280, 1280),
            down_block_types=(_CROSS, _CROSS, _CROSS, "DownBlock2D"),
            up_block_types=("UpBlock2D", _CROSS_UP, _CROSS_UP, _CROSS_UP),
            cross_attention_dim=768,
            attention_head_dim=8,
        )
        return unet, CLIPTextModel(_clip(768, 12, 12))


def sdxl() -> tuple[nn.Module, nn.Module, nn.Module]:
    """U-Net and both text encoders on the meta device."""
    with torch.device("meta"):
        unet = _sdxl_unet((320, 640, 1280), (1, 2, 10), (5, 10, 20), cross=2048, time=256, added=2816)
        return unet, CLIPTextModel(_clip(768, 12, 12)), CLIPTextModelWithProjection(_clip(1280, 32, 20))


def tiny_sdxl() -> StableDiffusionXLPipeline:
    """SDXL's blocks at a few channels, random weights."""
    tokenizer = build_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = _sdxl_unet((8, 16, 16), (1, 1, 2), (2, 2, 2), cross=32, time=8, added=64, groups=4)
        first, second = CLIPTextModel(_clip(16, 2, 2)), CLIPTextModelWithProjection(_clip(16, 2, 2))
        vae = AutoencoderKL(
            latent_channels=4,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        )
    return StableDiffusionXLPipeline(vae, first, second, tokenizer, tokenizer, unet, DDIMScheduler())


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Tensor name → shape."""
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def _clip(width: int, layers: int, heads: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=width,
    )


def _sdxl_unet(
    channels: tuple[int, ...],
    transformers: tuple[int, ...],
    heads: tuple[int, ...],
    *,
    cross: int,
    time: int,
    added: int,
    groups: int = 32,
) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", _CROSS, _CROSS),
        up_block_types=(_CROSS_UP, _CROSS_UP, "UpBlock2D"),
        transformer_layers_per_block=transformers,
        cross_attention_dim=cross,
        attention_head_dim=heads,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=time,
        projection_class_embeddings_input_dim=added,
        norm_num_groups=groups,
    )
