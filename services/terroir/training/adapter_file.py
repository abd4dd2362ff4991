"""The published file of a trained adapter: kohya keys with the headers that other programs read."""

from __future__ import annotations

import hashlib
from typing import Final

from terroir.lora.formats import to_kohya
from terroir.training.config import TrainConfig
from terroir.training.config_parser import dump_config
from terroir.training.engine.ports import TrainResult

_ARCHITECTURE: Final = "stable-diffusion-v1/lora"


def kohya_file(result: TrainResult, config: TrainConfig, *, title: str, base_digest: str, trigger_word: str) -> bytes:
    """The file's bytes; equal runs give equal bytes, so it holds no times; nor captions or folder names."""
    precision = {"no": "None", "bf16": "bf16"}[config.mixed_precision]
    side = f"({config.resolution}, {config.resolution})"
    headers = {
        "ss_base_model_version": "sd_v1",
        "ss_v2": "False",
        "ss_output_name": title,
        "ss_sd_model_name": config.base_model,
        "ss_new_sd_model_hash": base_digest,
        "ss_resolution": side,
        "ss_num_train_images": str(result.pictures),
        "ss_steps": str(result.steps),
        "ss_learning_rate": f"{config.learning_rate:g}",
        "ss_unet_lr": f"{config.learning_rate:g}",
        "ss_lr_scheduler": str(config.lr_scheduler),
        "ss_optimizer": str(config.optimizer),
        "ss_seed": str(config.seed),
        "ss_noise_offset": f"{config.noise_offset:g}",
        "ss_min_snr_gamma": "None" if config.min_snr_gamma is None else f"{config.min_snr_gamma:g}",
        "ss_mixed_precision": precision,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": _ARCHITECTURE,
        "modelspec.implementation": "terroir",
        "modelspec.title": title,
        "modelspec.resolution": f"{config.resolution}x{config.resolution}",
        "modelspec.trigger_phrase": trigger_word,
    }
    return to_kohya(result.adapter, headers)


def config_digest(config: TrainConfig) -> str:
    """SHA-256 (hex) of the configuration with every default filled in."""
    return hashlib.sha256(dump_config(config).encode()).hexdigest()
