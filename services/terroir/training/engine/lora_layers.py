"""Adapter layers in a denoiser: PEFT puts them in, and their weights come out in canonical form."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from terroir.lora.adapter import Adapter, LoraModule
from terroir.training.config import TargetPreset, TrainConfig
from terroir.training.engine.randomness import derive
from terroir.training.errors import NothingToTrain

_NAME: Final = "default"
_ATTENTION: Final = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD: Final = ("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
_RESIDUAL: Final = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv")
PRESETS: Final = {
    TargetPreset.ATTENTION: _ATTENTION,
    TargetPreset.ATTENTION_FF: (*_ATTENTION, *_FEED_FORWARD),
    TargetPreset.ALL_LINEAR_CONV: (*_ATTENTION, *_FEED_FORWARD, *_RESIDUAL),
}


def inject(unet: UNet2DConditionModel, config: TrainConfig) -> list[tuple[str, nn.Parameter]]:
    """Freeze the denoiser, add the adapter layers and return their weights, fp32, in the model's own order.

    Raises NothingToTrain (NO_TARGET_MODULES) if no layer has one of the names.
    """
    targets = config.target_modules
    endings = PRESETS[targets] if isinstance(targets, TargetPreset) else targets
    adaptable = [
        name
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and any(name == e or name.endswith(f".{e}") for e in endings)
    ]
    if not adaptable:
        raise NothingToTrain(
            f"target_modules {', '.join(endings)} match no layer of the denoiser (use attention, attention-ff, "
            "all-linear-conv or names such as to_q)",
            reason="NO_TARGET_MODULES",
            field="target_modules",
        )
    unet.requires_grad_(False)
    torch.manual_seed(derive(config.seed, "init"))
    unet.add_adapter(
        LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.alpha,
            lora_dropout=config.lora_dropout,
            target_modules=adaptable,
            init_lora_weights="gaussian",
        ),
        adapter_name=_NAME,
    )
    weights = [(name, weight) for name, weight in unet.named_parameters() if weight.requires_grad]
    for _, weight in weights:
        weight.data = weight.data.float()
    return weights


def extract(unet: UNet2DConditionModel, alpha: float) -> Adapter:
    """The adapter as it is now."""
    modules = {
        f"unet.{path}": LoraModule(
            down=_array(layer.lora_A[_NAME].weight), up=_array(layer.lora_B[_NAME].weight), alpha=alpha
        )
        for path, layer in unet.named_modules()
        if isinstance(layer, LoraLayer)
    }
    return Adapter(modules)


def _array(weight: Tensor) -> npt.NDArray[np.float32]:
    return weight.detach().float().cpu().numpy().copy()
