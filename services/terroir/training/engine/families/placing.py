"""Where a base's components lie: what encodes pictures and captions makes room for what trains."""

from __future__ import annotations

from typing import Any

import torch

from terroir.training.config import TrainConfig
from terroir.training.engine.adapters.quantization import quantize_
from terroir.training.engine.families.interface import Family
from terroir.training.engine.precision import Precision


def make_room(family: Family, config: TrainConfig, device: str) -> None:
    """Bring the denoiser to the device, in the precision that it is held in, once everything is encoded.

    Encoders whose work is done leave a GPU first: a denoiser of SDXL and they together fill a small one.
    """
    cuda = device.startswith("cuda")
    if cuda:
        family.vae.to("cpu")
        if config.text_encoder_lr is None:
            for encoder in family.text_encoders.values():
                encoder.to("cpu")
        torch.cuda.empty_cache()
    unet: Any = family.unet
    half = Precision.frozen(config.mixed_precision)
    quantize_(unet, config.base_quantization, half)
    if cuda:
        unet.to(device)
        unet.to(memory_format=torch.channels_last)


def ready_to_train(family: Family, config: TrainConfig) -> None:
    """Put what trains into training mode, with activations computed twice if memory is short."""
    unet: Any = family.unet
    unet.train()
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if config.text_encoder_lr is None:
        return
    for encoder in family.text_encoders.values():
        encoder.train()
        if config.gradient_checkpointing:
            clip: Any = encoder
            # The embeddings take no gradient; the older, re-entrant way would lose that of every layer then.
            clip.activation_checkpointing_enable({"use_reentrant": False})
