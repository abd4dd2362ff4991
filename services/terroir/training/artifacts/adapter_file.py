"""The published file of a trained adapter: kohya keys with the headers that other programs read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import to_kohya
from terroir.lora.formats.headers import Description, HeaderProfile, describe, of_profile
from terroir.training.config import Optimizer, TrainConfig
from terroir.training.config.parser import dump_config
from terroir.training.engine.ports import TrainResult

_NONE: Final = "None"
"""How sd-scripts writes what is unset."""
_OPTIMIZERS: Final = {
    Optimizer.ADAMW: "torch.optim.AdamW", Optimizer.ADAM: "torch.optim.Adam", Optimizer.SGD: "torch.optim.SGD",
}  # fmt: skip


def kohya_file(
    result: TrainResult,
    config: TrainConfig,
    *,
    title: str,
    base_digest: str,
    trigger_word: str,
    profile: HeaderProfile = HeaderProfile.PUBLIC,
) -> bytes:
    """The file's bytes; equal runs give equal bytes, so it holds no times.

    The public profile tells how the adapter was trained, but no caption, name of a folder or data set, nor the seed;
    the private one only what programs need to load and list the file.
    """
    described = describe(
        Description(
            title=title,
            family=result.family,
            resolution=config.resolution,
            prediction_type=result.prediction_type,
            base_name=_public_name(config.base_model),
            base_digest=base_digest,
            trigger_word=trigger_word,
        )
    )
    headers = {**described, **_training(result, config), **_network(result.adapter, config)}
    return to_kohya(result.adapter, of_profile(headers, profile), sdxl=result.family == "sdxl")


def config_digest(config: TrainConfig) -> str:
    """SHA-256 (hex) of the configuration with every default filled in."""
    return hashlib.sha256(dump_config(config).encode()).hexdigest()


def _public_name(base_model: str) -> str:
    """A folder's place is nobody's business; a base's name is."""
    name = base_model.removeprefix("bases/")
    return "" if "/" in name or "\\" in name else name


def _training(result: TrainResult, config: TrainConfig) -> Mapping[str, str]:
    """How it was trained, as sd-scripts' train_network.py writes it."""
    text_rate = config.text_encoder_lr
    return {
        "ss_num_train_images": str(result.pictures),
        "ss_max_train_steps": str(result.steps),
        "ss_steps": str(result.steps),
        "ss_total_batch_size": str(config.samples_per_step),
        "ss_gradient_accumulation_steps": str(config.gradient_accumulation_steps),
        "ss_gradient_checkpointing": str(config.gradient_checkpointing),
        "ss_learning_rate": f"{config.learning_rate:g}",
        "ss_unet_lr": f"{config.learning_rate:g}",
        "ss_text_encoder_lr": _NONE if text_rate is None else f"{text_rate:g}",
        "ss_lr_scheduler": config.lr_scheduler.value,
        "ss_lr_warmup_steps": str(config.lr_warmup_steps),
        "ss_optimizer": _OPTIMIZERS[config.optimizer],
        "ss_max_grad_norm": f"{config.max_grad_norm:g}",
        "ss_mixed_precision": config.mixed_precision.value,
        "ss_noise_offset": f"{config.noise_offset:g}" if config.noise_offset else _NONE,
        "ss_min_snr_gamma": _NONE if config.min_snr_gamma is None else f"{config.min_snr_gamma:g}",
        "ss_clip_skip": _NONE if config.clip_skip is None else str(config.clip_skip),
        "ss_enable_bucket": str(config.enable_bucket),
        "ss_caption_dropout_rate": f"{config.caption_dropout:g}",
        "ss_network_dropout": f"{config.lora_dropout:g}" if config.lora_dropout else _NONE,
    }


def _network(adapter: Adapter, config: TrainConfig) -> Mapping[str, str]:
    """Rank and strength of the layers other than large convolutions, whose own are among the arguments.

    Strengths are those of the file: with rsLoRA, alpha times √rank.
    """
    large = {name for name, module in adapter.modules.items() if _is_large(module)}
    usual = [module for name, module in adapter.modules.items() if name not in large] or list(adapter.modules.values())
    arguments = {"use_dora": "True"} if adapter.has_magnitudes else {}
    if large and config.conv_rank is not None:
        convolution = adapter.modules[min(large)]
        arguments |= {"conv_dim": str(convolution.rank), "conv_alpha": f"{convolution.alpha:g}"}
    if config.loraplus_lr_ratio is not None:
        arguments["loraplus_lr_ratio"] = f"{config.loraplus_lr_ratio:g}"
    return {
        "ss_network_dim": str(usual[0].rank),
        "ss_network_alpha": f"{usual[0].alpha:g}",
        "ss_network_args": json.dumps(arguments),
    }


def _is_large(module: object) -> bool:
    return isinstance(module, LoraModule) and module.down.ndim == 4 and max(module.down.shape[2:]) > 1
