"""LoHa and LoKr in device memory, as factors: whole, a LoHa of SD 1.5's denoiser would take 3.4 GB instead of 10 MB.

A change is multiplied out when it is merged, which happens once a composition and layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from terroir.inference.engine.wearing.upload import uploaded
from terroir.lora.loha import HadamardFactor, LohaModule
from terroir.lora.lokr import KroneckerFactor, LokrModule


@dataclass(frozen=True, eq=False)
class Product:
    """`a @ b` in fp32, or with a Tucker core `einsum("ijhw,ip,jq->pqhw", core, a, b)`, or b alone."""

    b: Tensor
    """`[r, inputs]`; beside a core `[r, q]`; alone `[p, inputs]`."""
    a: Tensor | None = None
    """`[p, r]`; beside a core `[r, p]`."""
    core: Tensor | None = None
    """`[r, r, kh, kw]`."""

    def multiplied(self) -> Tensor:
        """`[p, inputs]`, window and all."""
        if self.a is None:
            return self.b
        if self.core is None:
            return self.a @ self.b
        return torch.einsum("ijhw,ip,jq->pqhw", self.core, self.a, self.b).flatten(1)


@dataclass(frozen=True, eq=False)
class Hadamard:
    """LoHa: `scale * first ∘ second`, both `[out, inputs]`."""

    first: Product
    second: Product
    scale: float

    def added_to(self, total: Tensor, _base: Tensor, weight: float) -> None:
        """Add `weight` times the change to `total [out, inputs]`."""
        total.addcmul_(self.first.multiplied(), self.second.multiplied(), value=weight * self.scale)


@dataclass(frozen=True, eq=False)
class Kronecker:
    """LoKr: `scale * kron(small, large)`, small `[p, c]`, large `[q, d * kh * kw]`."""

    small: Product
    large: Product
    scale: float

    def added_to(self, total: Tensor, _base: Tensor, weight: float) -> None:
        """Add `weight` times the change to `total [p * q, c * d * kh * kw]`."""
        small, large = self.small.multiplied(), self.large.multiplied()
        blocks = total.view(small.shape[0], large.shape[0], small.shape[1], large.shape[1])
        blocks.addcmul_(small[:, None, :, None], large[None, :, None, :], value=weight * self.scale)


def hadamard(module: LohaModule, device: torch.device | str) -> Hadamard:
    """Upload a LoHa."""
    return Hadamard(_product(module.first, device), _product(module.second, device), module.scale)


def kronecker(module: LokrModule, device: torch.device | str) -> Kronecker:
    """Upload a LoKr."""
    return Kronecker(_product(module.first, device), _product(module.second, device), module.scale)


def _product(factor: HadamardFactor | KroneckerFactor, device: torch.device | str) -> Product:
    if isinstance(factor, KroneckerFactor) and factor.whole is not None:
        return Product(uploaded(factor.whole, device).flatten(1))
    assert factor.a is not None
    assert factor.b is not None
    core = None if factor.core is None else uploaded(factor.core, device)
    return Product(uploaded(factor.b, device), uploaded(factor.a, device), core)
