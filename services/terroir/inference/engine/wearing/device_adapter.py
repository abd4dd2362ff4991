"""Adapters in device memory: unscaled factors, so that another weight is another scale and never another upload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from terroir.inference.engine.wearing.product_factors import Hadamard, Kronecker, hadamard, kronecker
from terroir.inference.engine.wearing.upload import uploaded
from terroir.lora.adapter import Adapter, LoraModule, Module
from terroir.lora.loha import LohaModule
from terroir.lora.lokr import LokrModule


@dataclass(frozen=True, eq=False)
class LowRank:
    """Change `scale * up @ down` in fp32, in the form that `flattened` gives a weight."""

    down: Tensor
    """`[r, in]`; of a convolution `[r, kh * kw * in]`."""
    up: Tensor
    """`[out, r]`."""
    scale: float
    """alpha / r."""
    magnitude: Tensor | None
    """DoRA's `[out]`."""

    def added_to(self, total: Tensor, base: Tensor, weight: float) -> None:
        """Add `weight` times the change to `total [out, inputs]`; `base` is the pristine weight in the same form.

        A DoRA counts as its change at weight 1 times its weight, as `Composition.delta` says.
        """
        if self.magnitude is None:
            total.addmm_(self.up, self.down, alpha=weight * self.scale)
            return
        directed = torch.addmm(base, self.up, self.down, alpha=self.scale)
        lengths = directed.norm(dim=1).clamp_min_(torch.finfo(torch.float32).tiny)
        changed = directed.mul_((self.magnitude / lengths).unsqueeze(1)).sub_(base)
        total.add_(changed, alpha=weight)


DeviceModule = LowRank | Hadamard | Kronecker
DeviceAdapter = Mapping[str, DeviceModule]
"""By `<component>.<layer path>`."""


def on_device(adapter: Adapter, device: torch.device | str) -> DeviceAdapter:
    """Upload an adapter. Any thread may do it: the device thread then only takes what is there."""
    return {layer: _module(module, device) for layer, module in adapter.modules.items()}


def _module(module: Module, device: torch.device | str) -> DeviceModule:
    if isinstance(module, LoraModule):
        magnitude = None if module.magnitude is None else uploaded(module.magnitude, device)
        down, up = uploaded(module.down, device), uploaded(module.up, device)
        return LowRank(flattened(down), up.flatten(1), module.scale, magnitude)
    if isinstance(module, LohaModule):
        return hadamard(module, device)
    if isinstance(module, LokrModule):
        return kronecker(module, device)
    raise TypeError(f"no device form of {type(module).__name__}")


def flattened(weight: Tensor) -> Tensor:
    """`[out, inputs]`; a convolution's window comes before its channels, as in memory where channels come last."""
    return weight if weight.dim() == 2 else weight.permute(0, 2, 3, 1).flatten(1)
