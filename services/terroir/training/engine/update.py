"""The guarded update: gradients of all passes and workers, judged finite before any weight changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import torch
from torch import Tensor, nn, optim

from terroir.training.engine.adapters.layers import Weight
from terroir.training.engine.optimizers import set_rates
from terroir.training.engine.ports import Collective
from terroir.training.engine.precision import Precision
from terroir.training.engine.schedule import Rates


class Outcome(Enum):
    """What became of a step."""

    APPLIED = auto()
    BAD = auto()
    """Loss or gradients were not finite; the weights stay as they were."""
    OVERFLOWED = auto()
    """The scaled gradients exceeded fp16; the loss scale is lowered, and the weights stay as they were."""


@dataclass(frozen=True)
class Step:
    """A finished step, equal on all workers."""

    outcome: Outcome
    loss: float
    """Mean over passes and workers."""
    norm: float
    """Of the gradients before they are clipped."""


class GuardedUpdate:
    """Takes the losses of a step's passes, then changes the weights or leaves them."""

    def __init__(
        self,
        weights: Sequence[Weight],
        optimizer: optim.Optimizer,
        precision: Precision,
        collective: Collective,
        max_norm: float,
    ) -> None:
        """`max_norm` 0 leaves gradients as long as they are."""
        self._weights = [weight.parameter for weight in weights]
        self._optimizer = optimizer
        self._precision = precision
        self._collective = collective
        self._max_norm = max_norm or math.inf
        self._losses: list[Tensor] = []

    def add(self, loss: Tensor, passes: int) -> None:
        """Add the gradients of one of the step's `passes`."""
        self._losses.append(loss.detach())
        self._precision.scaled(loss / passes).backward()

    def finish(self, rates: Rates) -> Step:
        """Average over the workers, judge, clip and apply."""
        loss, norm = self._measured()
        outcome = self._judged(loss, norm)
        if outcome is Outcome.APPLIED:
            set_rates(self._optimizer, rates)
            self._optimizer.step()
        if outcome is Outcome.BAD:
            self._precision.keep()
        else:
            self._precision.adapt()
        self._optimizer.zero_grad(set_to_none=True)
        self._losses = []
        return Step(outcome, loss, norm)

    def _measured(self) -> tuple[float, float]:
        """Loss and norm; the only time in a step that the processor waits for the device."""
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        loss = torch.stack(self._losses).mean()
        # Not finite on one worker is not finite on all then, and what any worker does, all do.
        self._collective.average_([*gradients, loss])
        self._precision.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._weights, self._max_norm)
        measured: list[float] = torch.stack([loss, norm]).tolist()
        return measured[0], measured[1]

    def _judged(self, loss: float, norm: float) -> Outcome:
        if math.isfinite(loss) and math.isfinite(norm):
            return Outcome.APPLIED
        # At a scale of 1 an overflow is none of the scale's.
        if math.isfinite(loss) and self._precision.scales and self._precision.loss_scale > 1:
            return Outcome.OVERFLOWED
        return Outcome.BAD
