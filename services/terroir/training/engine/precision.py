"""Arithmetic of the passes: fp32, bf16, or fp16 with a loss scale that adapts.

Adapter weights, gradients and optimiser state are always fp32. In fp32, torch's own defaults hold: on recent GPUs
convolutions may use TF32, matrix products do not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, optim

from terroir.training.config import MixedPrecision

_HALVES: Final = {MixedPrecision.BF16: torch.bfloat16, MixedPrecision.FP16: torch.float16}


class Precision:
    """How passes compute, and how gradients survive it."""

    def __init__(self, kind: MixedPrecision, device: str) -> None:
        self._half = _HALVES.get(kind)
        self._device = device.split(":", maxsplit=1)[0]
        self._scaler = torch.amp.GradScaler(self._device, enabled=kind is MixedPrecision.FP16)

    @staticmethod
    def frozen(kind: MixedPrecision) -> torch.dtype:
        """What frozen weights are held in: that of the passes, which would round them anyway, at half the memory."""
        return _HALVES.get(kind, torch.float32)

    def passes(self) -> contextlib.AbstractContextManager[Any]:
        """Context of forward passes."""
        if self._half is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device, dtype=self._half)

    @property
    def scales(self) -> bool:
        """Whether there is a loss scale."""
        return self._scaler.is_enabled()

    @property
    def loss_scale(self) -> float:
        """What losses are multiplied by for now."""
        return float(self._scaler.get_scale())

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to take gradients of."""
        return self._scaler.scale(loss)

    def unscale_(self, optimizer: optim.Optimizer) -> None:
        """Divide the gradients by the loss scale, in place."""
        self._scaler.unscale_(optimizer)

    def adapt(self) -> None:
        """Lower the scale if the gradients of the step overflowed, or raise it after many that did not."""
        if self.scales:
            self._scaler.update()

    def keep(self) -> None:
        """Leave the scale as it is: the step says nothing about it."""
        if self.scales:
            self._scaler.update(self._scaler.get_scale())

    def state(self) -> Mapping[str, float]:
        """What a resumed run needs; empty without a scale."""
        return dict(self._scaler.state_dict())

    def restore(self, state: Mapping[str, float]) -> None:
        """Take over the state of a checkpoint."""
        if self.scales:
            self._scaler.load_state_dict(dict(state))
