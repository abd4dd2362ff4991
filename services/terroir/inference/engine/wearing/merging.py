"""`W0 + Σ weight · change`: summed in fp32, rounded once, `W0` only read.

Weights are merged in the form in which they lie in memory, so that a convolution costs no change of order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import torch
from torch import Tensor

from terroir.inference.engine.wearing.device_adapter import DeviceModule, LowRank, flattened

_RANK_STEP: Final = 8
"""Padded ranks are multiples of it."""
_MOST_NUMBERS: Final = 1 << 26
"""Of sums in fp32 that are still to be rounded: 256 MiB beside the banks."""

Factors = Sequence[tuple[float, LowRank]]
"""Changes of one layer with their scales."""


def unflattened(flat: Tensor, shape: torch.Size) -> Tensor:
    """A view of `[…, out, inputs]`, as `flattened` makes them, in a layer's own shape."""
    if len(shape) == 2:
        return flat
    out, inner, height, width = shape
    return flat.view(*flat.shape[:-2], out, height, width, inner).movedim(-1, -3)


def merged(base: Tensor, terms: Iterable[tuple[float, DeviceModule]]) -> Tensor:
    """The sum in the base's shape and precision."""
    flat = torch.empty((base.shape[0], base[0].numel()), dtype=base.dtype, device=base.device)
    merge_terms(flat, base, terms)
    return unflattened(flat, base.shape)


def merge_terms(flat: Tensor, base: Tensor, terms: Iterable[tuple[float, DeviceModule]]) -> None:
    """Write the sum to `[out, inputs]`, change by change, of any kind."""
    pristine = flattened(base.detach().to(torch.float32))
    total = flat if flat.dtype == torch.float32 else torch.empty_like(pristine)
    total.copy_(pristine)
    for weight, module in terms:
        if isinstance(module, LowRank) or base.dim() == 2:
            module.added_to(total, pristine, weight)
        else:  # their factors know a window only behind its channels
            change = torch.zeros_like(base, dtype=torch.float32, memory_format=torch.contiguous_format)
            module.added_to(change.flatten(1), pristine, weight)
            total.add_(flattened(change))
    if total is not flat:
        flat.copy_(total)


def merge_factors(flat: Tensor, base: Tensor, units: Sequence[Factors]) -> None:
    """Write the sums of several units to `[units, out, inputs]`, in one `baddbmm`; in half precision in several."""
    down, up, scale = padded(units, base.shape[0], base[0].numel(), torch.float32, base.device)
    up.mul_(scale)
    pristine = flattened(base.detach().to(torch.float32))
    if flat.dtype == torch.float32:
        torch.baddbmm(pristine.expand(len(units), -1, -1), up, down, out=flat)
        return
    step = max(1, _MOST_NUMBERS // pristine.numel())
    for part, ups, downs in zip(flat.split(step), up.split(step), down.split(step), strict=True):
        part.copy_(torch.baddbmm(pristine.expand(len(part), -1, -1), ups, downs))


def padded(
    units: Sequence[Factors], outputs: int, inputs: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """`down [units, r, in]` and `up [units, out, r]`, unscaled, and `scale [units, 1, r]`; zeros up to one rank."""
    rank = max(sum(module.down.shape[0] for _, module in factors) for factors in units)
    rank = -(-rank // _RANK_STEP) * _RANK_STEP
    down = torch.zeros(len(units), rank, inputs, dtype=dtype, device=device)
    up = torch.zeros(len(units), outputs, rank, dtype=dtype, device=device)
    scale = torch.zeros(len(units), 1, rank, dtype=dtype, device=device)
    for unit, factors in enumerate(units):
        at = 0
        for weight, module in factors:
            to = at + module.down.shape[0]
            down[unit, at:to] = module.down
            up[unit, :, at:to] = module.up
            scale[unit, :, at:to] = weight
            at = to
    return down, up, scale
