"""The update rules that a configuration may name, over groups of weights that learn at rates of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn, optim

from terroir.training.config import Optimizer, TrainConfig
from terroir.training.engine.adapters.layers import Weight
from terroir.training.engine.adapters.targets import UNET
from terroir.training.engine.schedule import Rates


def build_optimizer(config: TrainConfig, weights: Sequence[Weight]) -> optim.Optimizer:
    """The configured optimiser over the weights; Adam's variants run fused, in one call a group and step."""
    groups = _groups(config, weights)
    if config.optimizer is Optimizer.ADAMW:
        return optim.AdamW(groups, lr=config.learning_rate, fused=True)
    if config.optimizer is Optimizer.ADAM:
        return optim.Adam(groups, lr=config.learning_rate, fused=True)
    return optim.SGD(groups, lr=config.learning_rate, momentum=0.9)


def set_rates(optimizer: optim.Optimizer, rates: Rates) -> None:
    """Give every group its rate of the step."""
    for group in optimizer.param_groups:
        rate = rates.denoiser if group["component"] == UNET else rates.text_encoder
        group["lr"] = rate * group["multiplier"]


def _groups(config: TrainConfig, weights: Sequence[Weight]) -> list[dict[str, Any]]:
    """Groups by component, multiplier (of the block, of LoRA+) and decay.

    Lengths of DoRA's rows are not decayed: that would shrink the base's own weights.
    """
    grouped: dict[tuple[str, float, float], list[nn.Parameter]] = {}
    for weight in weights:
        faster = config.loraplus_lr_ratio if weight.role == "up" and config.loraplus_lr_ratio else 1.0
        decay = 0.0 if weight.role == "magnitude" else config.weight_decay
        key = ("unet" if weight.target.component == UNET else "text_encoder", weight.target.rate * faster, decay)
        grouped.setdefault(key, []).append(weight.parameter)
    return [
        {"params": parameters, "component": component, "multiplier": multiplier, "weight_decay": decay}
        for (component, multiplier, decay), parameters in grouped.items()
    ]
