"""The learning rate as a function of the step, so that there is no scheduler state to save."""

from __future__ import annotations

import math

from terroir.training.config import LrScheduler, TrainConfig


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Rate of optimiser step `step` (from 0): a linear warm-up, then the configured course to the end."""
    if step < config.lr_warmup_steps:
        return config.learning_rate * (step + 1) / config.lr_warmup_steps
    if config.lr_scheduler is LrScheduler.CONSTANT:
        return config.learning_rate
    done = (step - config.lr_warmup_steps) / max(1, total_steps - config.lr_warmup_steps)
    share = 1 - done if config.lr_scheduler is LrScheduler.LINEAR else (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * max(0.0, share)
