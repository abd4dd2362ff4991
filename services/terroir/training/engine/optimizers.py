"""The update rules that a configuration may name."""

from __future__ import annotations

from torch import nn, optim

from terroir.training.config import Optimizer, TrainConfig


def build_optimizer(config: TrainConfig, weights: list[nn.Parameter]) -> optim.Optimizer:
    """The configured optimiser over the adapter's weights; Adam's variants run fused, in one call a step."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer is Optimizer.ADAMW:
        return optim.AdamW(weights, lr=rate, weight_decay=decay, fused=True)
    if config.optimizer is Optimizer.ADAM:
        return optim.Adam(weights, lr=rate, weight_decay=decay, fused=True)
    return optim.SGD(weights, lr=rate, weight_decay=decay, momentum=0.9)
