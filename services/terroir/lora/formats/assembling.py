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
            raise UnsupportedAdapter(
                f"{key}: {layer} already has its {part} factor under another name; keep one of the two in the file",
                key=key,
                reason="ADAPTER_DUPLICATE_KEY",
            )
        setattr(factors, part, tensor)


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
    if len(weight) == 4:
        # Some tools store the factors of 1 × 1 convolutions as matrices.
        down = down.reshape(*down.shape, 1, 1) if down.ndim == 2 else down
        up = up.reshape(*up.shape, 1, 1) if up.ndim == 2 else up
    if factors.mid is not None:
        down = _folded(layer, factors.mid, down)
    rank = down.shape[0] if down.ndim else 0
    expected_up = (weight[0], rank) if len(weight) == 2 else (weight[0], rank, 1, 1)
    if rank < 1 or down.shape[1:] != tuple(weight[1:]) or up.shape != expected_up:
        raise WrongShape(
            f"{layer}: factors down {list(down.shape)} and up {list(up.shape)} do not fit a weight of {list(weight)}; "
            "the adapter is for another base, or its rank is 0",
            key=layer,
        )
    if rank > max_rank:
        raise RankTooLarge(
            f"{layer}: rank {rank} exceeds {max_rank}; shrink the adapter (resize_lora of sd-scripts) or retrain it "
            "with a lower rank",
            key=layer,
        )
    alpha = float(rank) if factors.alpha is None else factors.alpha
    if not math.isfinite(alpha):
        raise NotFinite(f"{layer}: alpha is {alpha}; it must be a finite number", key=layer)
    magnitude = _magnitude(layer, factors.magnitude, weight)
    return LoraModule(np.ascontiguousarray(down), np.ascontiguousarray(up), alpha, magnitude)


def _folded(layer: str, mid: Array, down: Array) -> Array:
    """Down `[r, in, kh, kw]` of a Tucker form: core mid `[r, r', kh, kw]` over down `[r', in, 1, 1]` (LyCORIS)."""
    if mid.ndim != 4 or down.ndim != 4 or down.shape[2:] != (1, 1) or mid.shape[1] != down.shape[0]:
        raise WrongShape(
            f"{layer}: the core {list(mid.shape)} does not fit down {list(down.shape)}; save the file again", key=layer
        )
    return np.einsum("mnhw,ni->mihw", mid, down[:, :, 0, 0])


def _magnitude(layer: str, magnitude: Array | None, weight: tuple[int, ...]) -> Array | None:
    """A DoRA magnitude as `[out]`; files hold `[out]`, `[out, 1]` or `[out, 1, 1, 1]`, or rarely one an input."""
    if magnitude is None:
        return None
    if magnitude.ndim < 1 or magnitude.size != weight[0] or magnitude.shape[0] != weight[0]:
        raise WrongShape(
            f"{layer}: a DoRA magnitude of {list(magnitude.shape)} is not one number an output ({weight[0]}); "
            "magnitudes an input are not supported: merge the adapter first",
            key=layer,
        )
    return np.ascontiguousarray(magnitude.reshape(-1))
