"""Where denoising begins: noise, noise between two seeds, or a picture with noise upon it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Beginning:
    """Where denoising begins."""

    latents: Tensor
    """`[pictures, channels, rows, columns]`, scaled for the sampler."""
    timesteps: Tensor
    """Those that are to be made."""
    generators: Sequence[torch.Generator]
    """One a picture, for samplers that draw noise at every step."""


def noise_of(shape: Sequence[int], generators: Sequence[torch.Generator], dtype: torch.dtype) -> Tensor:
    """Standard normal `[pictures, …]` on the CPU, one generator a picture, drawn as diffusers draws it."""
    return torch.cat([torch.randn((1, *shape), generator=generator, dtype=dtype) for generator in generators])


def slerp(start: Tensor, end: Tensor, share: float) -> Tensor:
    """The point at `share` of the arc from `start` to `end` (Shoemake 1985), each picture `[…]` as one vector.

    Noise in many dimensions lies near a sphere; a straight line between two draws leaves it, towards grey pictures.
    """
    if share <= 0 or share >= 1:
        return start if share <= 0 else end
    first, second = start.flatten(1).to(torch.float64), end.flatten(1).to(torch.float64)
    cosine = (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))
    angle = torch.acos(cosine.clamp(-1, 1)).clamp_min(1e-6).unsqueeze(1)
    between = (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * second) / torch.sin(angle)
    return between.to(start.dtype).view_as(start)


def remaining_timesteps(scheduler: Any, steps: int, strength: float) -> Tensor:
    """The last `steps × strength` timesteps, at least one; tells the scheduler where it begins, as diffusers does."""
    made = max(1, min(int(steps * strength), steps))
    begin = (steps - made) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):  # DDIM goes by the timestep alone
        scheduler.set_begin_index(begin)
    timesteps: Tensor = scheduler.timesteps[begin:]
    return timesteps
