"""Samplers by their public names, as diffusers schedulers over the base's own noise schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)

from terroir.inference.engine.messages import SAMPLERS

_CLASSES: Final = dict(
    zip(
        SAMPLERS,
        (DDIMScheduler, EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, DPMSolverMultistepScheduler),
        strict=True,
    )
)


def build_sampler(name: str, config: Mapping[str, Any]) -> Any:
    """A scheduler of one request's own; `config` is the base's (betas, prediction type, zero terminal SNR)."""
    return _CLASSES[name].from_config(config)
