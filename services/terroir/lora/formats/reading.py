"""What a reader finds in a file, before it is checked against the base."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from terroir.lora.adapter import Array
from terroir.lora.errors import UnsupportedAdapter

LYCORIS_PARTS: Final = frozenset({
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
})  # fmt: skip
"""What follows the layer in keys of LoHa and LoKr."""


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
    lycoris: dict[str, Array] = field(default_factory=dict)
    """By names of `LYCORIS_PARTS`."""


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

    def put_lycoris(self, layer: str, part: str, key: str, tensor: Array) -> None:
        """Set a factor of LoHa or LoKr; raises as `put` does."""
        factors = self.of(layer)
        if part in factors.lycoris:
            raise _named_twice(key, layer, part)
        factors.lycoris[part] = tensor

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
