"""The tiny base model's components: the classes of Stable Diffusion 1.x, small enough to train on a CPU.

It differs from Stable Diffusion 1.5 in numbers only: 12 latent channels at a quarter of the picture's side, 32 tokens,
and v-prediction with zero terminal SNR (Lin et al., arXiv 2305.08891), so whatever runs on it runs on SD 1.5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from terroir.tiny import NATIVE_SIDE

LATENT_CHANNELS: Final = 12
LATENT_FACTOR: Final = 4
MAX_TOKENS: Final = 32
_TEXT_WIDTH: Final = 128


def build_vae() -> AutoencoderKL:
    """Autoencoder without attention: any size divisible by 4 decodes."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        sample_size=NATIVE_SIDE,
    )


def build_unet() -> UNet2DConditionModel:
    """Denoiser with self- and cross-attention at 16, 8 and 4 latent rows (for 64 pixels)."""
    return UNet2DConditionModel(
        sample_size=NATIVE_SIDE // LATENT_FACTOR,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=(64, 96, 160),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=_TEXT_WIDTH,
        # Despite its name this is the number of heads a block (diffusers keeps the misnomer for old checkpoints).
        attention_head_dim=(2, 4, 4),
        norm_num_groups=8,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two-layer CLIP text transformer, trained jointly with the denoiser."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_TEXT_WIDTH,
            intermediate_size=4 * _TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=_TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_scheduler() -> DDIMScheduler:
    """Sampler and noise schedule; `steps_offset` is what StableDiffusionPipeline expects."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def save_pipeline(
    folder: Path,
    *,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
) -> None:
    """Write the components as a diffusers folder: denoiser and autoencoder in half precision.

    The text encoder stays in single precision: transformers loads a model in the precision that it was saved in,
    diffusers loads in single precision, and a pipeline with both at once does not run.
    """
    unet.to(torch.float16)
    vae.to(torch.float16)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
