"""Learning rates as a function of the step, so that there is no scheduler state to save. Steps are optimiser steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from terroir.training.config import LrScheduler, TrainConfig


@dataclass(frozen=True)
class Rates:
    """Learning rates of one step."""

    denoiser: float
    text_encoder: float
    """0 where no text encoder is trained, or no longer."""


def rates_of(config: TrainConfig, step: int, total_steps: int) -> Rates:
    """Rates of optimiser step `step` (from 0) of `total_steps`."""
    return Rates(learning_rate(config, step, total_steps), text_encoder_rate(config, step, total_steps))


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Rate of the denoiser's adapter: a linear warm-up, then the configured course to the end."""
    return config.learning_rate * _share(config.lr_scheduler, config, step, total_steps)


def text_encoder_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Rate of the text encoders' adapters, whose course ends at `text_encoder_stop_step` if that comes first."""
    if config.text_encoder_lr is None:
        return 0.0
    end = min(config.text_encoder_stop_step or total_steps, total_steps)
    if step >= end:
        return 0.0
    return config.text_encoder_lr * _share(config.text_encoder_lr_scheduler or config.lr_scheduler, config, step, end)


def _share(scheduler: LrScheduler, config: TrainConfig, step: int, total_steps: int) -> float:
    if step < config.lr_warmup_steps:
        return (step + 1) / config.lr_warmup_steps
    done = min(1.0, (step - config.lr_warmup_steps) / max(1, total_steps - config.lr_warmup_steps))
    match scheduler:
        case LrScheduler.CONSTANT:
            return 1.0
        case LrScheduler.LINEAR:
            return 1 - done
        case LrScheduler.COSINE:
            return _falling(done)
        case LrScheduler.COSINE_WITH_RESTARTS:
            return 0.0 if done >= 1 else _falling((done * config.lr_num_cycles) % 1)


def _falling(done: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter, arXiv 1608.03983)."""
    return max(0.0, (1 + math.cos(math.pi * done)) / 2)
