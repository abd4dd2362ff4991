"""From named factors to checked modules; what all readers share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from terroir.lora.adapter import Adapter, Array, LoraModule
from terroir.lora.errors import IncompleteModule, NotFinite, RankTooLarge, UnsupportedAdapter, WrongShape
from terroir.lora.key_table import KeyTable


@dataclass(frozen=True)
class Ignored:
    """A key that was left out."""

    key: str
    reason: str


@dataclass
class Factors:
    """What a reader found for one layer."""

    down: Array | None = None
    up: Array | None = None
    mid: Array | None = None
    """Core `[r, r, kh, kw]` of LoCon's Tucker form (LyCORIS `lora_mid`)."""
    magnitude: Array | None = None
    alpha: float | None = None
    scale: float | None = None
    """Intrinsic scale by itself, which A1111 puts above alpha / r."""


@dataclass
class Reading:
    """Factors by layer, and what was left out."""

    layers: dict[str, Factors] = field(default_factory=dict)
    ignored: list[Ignored] = field(default_factory=list)
    """Understood, and left out on purpose."""
    unknown: list[Ignored] = field(default_factory=list)
    """Of no format that is known, or for no layer of the base."""

    def of(self, layer: str) -> Factors:
        """The layer's factors so far."""
        return self.layers.setdefault(layer, Factors())

    def put(self, layer: str, part: Literal["down", "up", "mid", "magnitude"], key: str, tensor: Array) -> None:
        """Set a factor; raises UnsupportedAdapter if another key of the file named it already."""
        factors = self.of(layer)
        if getattr(factors, part) is not None:
            raise _named_twice(key, layer, part)
        setattr(factors, part, tensor)

    def set_alpha(self, layer: str, key: str, alpha: float) -> None:
        """Set alpha; raises as `put` does."""
        if self.of(layer).alpha is not None:
            raise _named_twice(key, layer, "alpha")
        self.of(layer).alpha = alpha


def _named_twice(key: str, layer: str, part: str) -> UnsupportedAdapter:
    return UnsupportedAdapter(
        f"{key}: {layer} already has its {part} under another name; keep one of the two in the file",
        key=key,
        reason="ADAPTER_DUPLICATE_KEY",
    )


def assemble(layers: Mapping[str, Factors], table: KeyTable, max_rank: int) -> Adapter:
    """Check every layer against the base; raises IncompleteModule, WrongShape, RankTooLarge or NotFinite."""
    return Adapter(
        {layer: _module(layer, factors, table[layer], max_rank) for layer, factors in sorted(layers.items())}
    )


def _module(layer: str, factors: Factors, weight: tuple[int, ...], max_rank: int) -> LoraModule:
    down, up = factors.down, factors.up
    if down is None or up is None:
        missing = "down (lora_A)" if down is None else "up (lora_B)"
        raise IncompleteModule(f"{layer} has no {missing} factor; the file is incomplete: save it again", key=layer)
    # Some tools store the factors of 1 × 1 convolutions as matrices, some those of matrices as such convolutions.
    down, up = _with_axes(down, len(weight)), _with_axes(up, len(weight))
    rank = down.shape[0] if down.ndim else 0
    if factors.mid is not None:
        rank = factors.mid.shape[0] if factors.mid.ndim else 0
    if rank > max_rank:  # before anything is computed from it: a core of a few bytes can name a huge product
        raise RankTooLarge(
            f"{layer}: rank {rank} exceeds max_rank {max_rank}; shrink it (resize_lora of sd-scripts) or "
            "retrain it with a lower rank",
            key=layer,
        )
    if factors.mid is not None:
        down = _folded(layer, factors.mid, down, weight)
    expected_up = (weight[0], rank) if len(weight) == 2 else (weight[0], rank, 1, 1)
    if rank < 1 or down.shape[1:] != tuple(weight[1:]) or up.shape != expected_up:
        raise WrongShape(
            f"{layer}: factors down {list(down.shape)} and up {list(up.shape)} do not fit a weight of {list(weight)}; "
            "the adapter is for another base, or its rank is 0",
            key=layer,
        )
    magnitude = _magnitude(layer, factors.magnitude, weight)
    return LoraModule(np.ascontiguousarray(down), np.ascontiguousarray(up), _alpha(layer, factors, rank), magnitude)


def _with_axes(factor: Array, axes: int) -> Array:
    if axes == 4 and factor.ndim == 2:
        return factor.reshape(*factor.shape, 1, 1)
    if axes == 2 and factor.ndim == 4 and factor.shape[2:] == (1, 1):
        return factor.reshape(factor.shape[:2])
    return factor


def _alpha(layer: str, factors: Factors, rank: int) -> float:
    alpha = float(rank) if factors.alpha is None else factors.alpha
    if factors.scale is not None:
        if factors.alpha is not None and not math.isclose(factors.scale * rank, alpha, rel_tol=1e-3):
            raise UnsupportedAdapter(
                f"{layer}: its scale {factors.scale:g} and its alpha {alpha:g} at rank {rank} differ, and A1111 "
                "takes the first, others the second; keep one in the file",
                key=layer,
                reason="ADAPTER_STRENGTH_UNKNOWN",
            )
        alpha = factors.scale * rank if factors.alpha is None else alpha
    with np.errstate(all="ignore"):
        kept = float(np.float32(alpha))  # as files hold it, so that an adapter stays the same through all of them
    if not math.isfinite(kept):
        raise NotFinite(f"{layer}: alpha is {alpha:g}; it must be a finite number of 32 bits", key=layer)
    if kept == 0:
        raise UnsupportedAdapter(
            f"{layer}: alpha is {alpha:g}, which sd-scripts takes for the rank and others for no effect; save the file "
            "with usual alphas",
            key=layer,
            reason="ADAPTER_STRENGTH_UNKNOWN",
        )
    return kept


def _folded(layer: str, mid: Array, down: Array, weight: tuple[int, ...]) -> Array:
    """Down `[r, in, kh, kw]` of a Tucker form: core mid `[r, r', kh, kw]` over down `[r', in, 1, 1]` (LyCORIS)."""
    fits = mid.ndim == 4 == down.ndim and down.shape[2:] == (1, 1) and mid.shape[1] == down.shape[0]
    if not fits or (down.shape[1], *mid.shape[2:]) != tuple(weight[1:]):
        raise WrongShape(
            f"{layer}: the core {list(mid.shape)} and down {list(down.shape)} do not fit a weight of {list(weight)}; "
            "the adapter is for another base",
            key=layer,
        )
    with np.errstate(all="ignore"):
        folded = np.einsum("mnhw,ni->mihw", mid, down[:, :, 0, 0])
    if not np.isfinite(folded).all():
        raise NotFinite(
            f"{layer}: its core times its down factor exceeds 32-bit floats; the file is damaged", key=layer
        )
    return folded


def _magnitude(layer: str, magnitude: Array | None, weight: tuple[int, ...]) -> Array | None:
    """A DoRA magnitude as `[out]`, from `[out]`, `[out, 1]` or `[out, 1, 1, 1]`."""
    if magnitude is None:
        return None
    if magnitude.ndim > 1 and magnitude.shape[:2] == (1, weight[1]) and weight[1] > 1:
        raise UnsupportedAdapter(
            f"{layer}: this DoRA keeps one magnitude an input ({weight[1]}), which PEFT and diffusers cannot express; "
            "train it with wd_on_output=True (LyCORIS), or turn it into a LoRA first",
            key=layer,
        )
    if magnitude.size != weight[0] or magnitude.ndim < 1 or magnitude.shape[0] != weight[0]:
        raise WrongShape(
            f"{layer}: a DoRA magnitude of {list(magnitude.shape)} is not one number an output ({weight[0]}); the "
            "adapter is for another base",
            key=layer,
        )
    if (magnitude < 0).any():
        raise WrongShape(
            f"{layer}: a DoRA magnitude is a length and cannot be negative; the file is damaged", key=layer
        )
    return np.ascontiguousarray(magnitude.reshape(-1))
