"""Samplers by their public names, as diffusers schedulers over the base's own noise schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

_BUILDERS: Final[Mapping[str, tuple[Any, Mapping[str, Any]]]] = {
    "ddim": (DDIMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler-a": (EulerAncestralDiscreteScheduler, {}),
    "dpmpp-2m": (DPMSolverMultistepScheduler, {}),
    "dpmpp-2m-karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "unipc": (UniPCMultistepScheduler, {}),
}


def build_sampler(name: str, config: Mapping[str, Any]) -> Any:
    """A scheduler of one request's own; `config` is the base's (betas, prediction type, zero terminal SNR)."""
    scheduler, options = _BUILDERS[name]
    return scheduler.from_config(config, **options)
