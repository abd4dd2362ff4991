"""The average of the weights over a run's steps, which wavers less than the last of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from terroir.training.engine.adapters.layers import Weight


class Average:
    """An exponential moving average with a decay a step (Polyak averaging as Tarvainen and Valpola's mean teacher).

    The decay rises to its value as (1 + n) / (10 + n) over the updates n, so that the start, which changes nothing,
    does not weigh on a short run (as in diffusers' EMAModel).
    """

    def __init__(self, weights: Sequence[Weight], decay: float) -> None:
        self._weights = [weight.parameter for weight in weights]
        self._names = [weight.name for weight in weights]
        self._decay = decay
        self._values = [weight.parameter.detach().clone() for weight in weights]

    def update(self, updates: int) -> None:
        """Take in the weights after update number `updates` (from 1)."""
        decay = min(self._decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(self._values, [weight.detach() for weight in self._weights], 1 - decay)

    @property
    def values(self) -> dict[str, Tensor]:
        """The averages by name of the weight."""
        return dict(zip(self._names, self._values, strict=True))
