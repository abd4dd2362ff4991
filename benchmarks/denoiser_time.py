"""Seconds that a training loop spends in the denoiser, told without changing the loop."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
from diffusers import UNet2DConditionModel


@dataclass
class DenoiserTime:
    """While open, times each forward pass of a denoiser and each backward pass; for one loop at a time, on the CPU.

    It replaces the two methods that every loop must call, so that both sides of a comparison are timed alike.
    """

    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    _kept: list[tuple[Any, str, Any]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._replace(UNet2DConditionModel, "forward", self.forward)
        self._replace(torch.Tensor, "backward", self.backward)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._kept:
            setattr(*self._kept.pop())

    def share_outside(self, step_seconds: Sequence[float]) -> float:
        """Share of these last steps that passed outside forward and backward.

        Raises ValueError unless the loop made one forward and one backward pass a step, or if it made fewer steps.
        """
        count = len(step_seconds)
        if len(self.forward) != len(self.backward) or not 0 < count <= len(self.forward):
            raise ValueError(
                f"{len(self.forward)} forward and {len(self.backward)} backward passes do not fit {count} steps"
            )
        return 1 - (sum(self.forward[-count:]) + sum(self.backward[-count:])) / sum(step_seconds)

    def _replace(self, owner: type, name: str, taken: list[float]) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(original)
        def timed(*values: Any, **named: Any) -> Any:
            since = time.perf_counter()
            result = original(*values, **named)
            taken.append(time.perf_counter() - since)
            return result

        self._kept.append((owner, name, original))
        setattr(owner, name, timed)
