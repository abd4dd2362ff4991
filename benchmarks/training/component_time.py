"""Seconds that a training loop spends in a base's components, told without changing the loop."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel


@dataclass
class ComponentTime:
    """While open, times each pass of a denoiser and its encoders, and each backward pass; for one loop at a time.

    It replaces the methods that every loop must call, so that both sides of a comparison are timed alike.
    """

    forward: list[float] = field(default_factory=list)
    """Of the denoiser."""
    backward: list[float] = field(default_factory=list)
    pictures: list[float] = field(default_factory=list)
    """Of the VAE's encoder."""
    texts: list[float] = field(default_factory=list)
    """Of the text encoder."""
    _kept: list[tuple[Any, str, Any]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._replace(UNet2DConditionModel, "forward", self.forward)
        self._replace(torch.Tensor, "backward", self.backward)
        self._replace(AutoencoderKL, "encode", self.pictures)
        self._replace(CLIPTextModel, "forward", self.texts)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._kept:
            setattr(*self._kept.pop())

    @property
    def bound(self) -> float:
        """(denoiser + VAE + text encoder) / denoiser: how much faster a loop gets that runs no encoder.

        For a loop with the encoders in every pass; medians without the first pass of each. Raises ValueError for
        another loop, and for one of a single pass.
        """
        taken = (self.forward, self.backward, self.pictures, self.texts)
        if len({len(seconds) for seconds in taken}) > 1 or len(self.forward) < 2:
            raise ValueError(
                f"{len(self.forward)} forward, {len(self.backward)} backward, {len(self.pictures)} VAE and "
                f"{len(self.texts)} text encoder passes are not those of a loop with all of them in every pass"
            )
        forward, backward, pictures, texts = (statistics.median(seconds[1:]) for seconds in taken)
        return (forward + backward + pictures + texts) / (forward + backward)

    def share_outside(self, step_seconds: Sequence[float]) -> float:
        """Share of these last steps that passed outside the denoiser's forward and backward.

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
            _synchronize()
            since = time.perf_counter()
            result = original(*values, **named)
            _synchronize()
            taken.append(time.perf_counter() - since)
            return result

        self._kept.append((owner, name, original))
        setattr(owner, name, timed)


def _synchronize() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
