"""Whether two adapters get in each other's way when stacked, from their factors alone."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.errors import UnsupportedAdapter
from terroir.lora.subspaces import Spectrum, energy_overlap, inner_product, spectrum

_HALF_LOST: Final = 0.065
"""Cosine at which half of the worse-off style is lost: fitted, see docs/compatibility.md."""
_SPREAD: Final = 0.03
"""Cosine by which the odds change by a factor of e: fitted likewise."""
MEDIUM_FROM: Final = 1 / 3
HIGH_FROM: Final = 2 / 3


class Level(IntEnum):
    """Verdict on an interference score, in order of severity."""

    LOW = 1
    """More likely than not both styles stay visible."""
    MEDIUM = 2
    """One may cover the other: look at samples."""
    HIGH = 3
    """Expect one to be lost: of the calibration's pairs one in thirteen kept half of both."""


@dataclass(frozen=True)
class Overlap:
    """What two adapters have in common, over all layers; symmetric but for the two norms.

    A layer counts by the geometric mean of its shares in both adapters' energy (squared Frobenius norm), so that one
    which only one of them changes counts nothing and the cosine is exactly that of the two whole changes.
    """

    inner: float
    """⟨Δ1, Δ2⟩ over all layers."""
    first_norm: float
    """Frobenius norm of the first change over all layers."""
    second_norm: float
    input_overlap: float
    """Of what they read (row spaces): 1 if the same, 0 if no more than by chance; see `energy_overlap`."""
    output_overlap: float
    """Of what they write (column spaces), likewise."""
    shared_layers: int
    """Layers that both change."""
    layers: int
    """Layers that at least one changes."""

    @property
    def cosine(self) -> float:
        """Of the two whole changes, -1 … 1; 0 if one of them is zero."""
        norms = self.first_norm * self.second_norm
        return max(-1.0, min(1.0, self.inner / norms)) if norms > 0 else 0.0

    @property
    def reversed(self) -> Overlap:
        """The same pair, the other one first."""
        return replace(self, first_norm=self.second_norm, second_norm=self.first_norm)


def compare(first: Adapter, second: Adapter) -> Overlap:
    """Compare two adapters of one base; rank-sized work and memory a layer."""
    return compare_pairs([first, second], [(0, 1)])[0, 1]


def compare_pairs(adapters: Sequence[Adapter], pairs: Collection[tuple[int, int]]) -> dict[tuple[int, int], Overlap]:
    """Compare pairs of positions; a layer is decomposed once an adapter, and only one layer's factors at a time.

    Raises UnsupportedAdapter (ADAPTER_NOT_COMPARABLE) for LoHa and LoKr: their changes have no low-rank factors.
    """
    sums = {pair: _Sums() for pair in pairs}
    wanted = sorted({position for pair in pairs for position in pair})
    for layer in sorted({layer for position in wanted for layer in adapters[position].modules}):
        modules = {at: _low_rank(adapters[at], layer) for at in wanted if layer in adapters[at].modules}
        spectra = {at: spectrum(module) for at, module in modules.items()}
        for (first, second), total in sums.items():
            total.add(spectra.get(first), spectra.get(second))
            if first in modules and second in modules:
                total.inner += inner_product(modules[first], modules[second])
    return {pair: total.overlap() for pair, total in sums.items()}


def interference(overlap: Overlap) -> float:
    """Share of the worse-off style that is expected to be lost when both are stacked at 0.7, 0 … 1.

    A logistic curve over the cosine, fitted to pictures of the tiny base: changes that pull the same way survive each
    other, others cover one another (docs/compatibility.md, `python -m benchmarks.compatibility`). A change of nothing
    costs nothing.
    """
    if not (overlap.first_norm and overlap.second_norm):
        return 0.0
    return 1 / (1 + math.exp((overlap.cosine - _HALF_LOST) / _SPREAD))


def level_of(score: float) -> Level:
    """Verdict on a score of `interference`."""
    if score >= HIGH_FROM:
        return Level.HIGH
    return Level.MEDIUM if score >= MEDIUM_FROM else Level.LOW


def suggested_weights(gram: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weights `[n]` at which n adapters together change the base as much as the strongest alone at weight 1.

    `gram[i, j]` is ⟨Δi, Δj⟩ over all layers. All get the one weight max‖Δi‖ / √(1ᵀ G 1), so the proportions that they
    were trained at stay: n adapters of equal norm that have nothing in common get 1/√n each, n equal ones 1/n. Never
    above 1: changes that cancel each other are not blown up, and no change at all keeps its weight.
    """
    together = max(float(gram.sum()), 0.0)
    strongest = max(float(np.diag(gram).max()), 0.0)
    common = 1.0 if together <= strongest else float(np.sqrt(strongest / together))
    return np.full(gram.shape[0], common)


def _low_rank(adapter: Adapter, layer: str) -> LoraModule:
    module = adapter.modules[layer]
    if not isinstance(module, LoraModule):
        raise UnsupportedAdapter(
            f"{layer} is a {module.kind} change, and only low-rank changes (LoRA, LoCon, DoRA) are compared; look at "
            "sample pictures of the stack, or turn it into a LoRA first (LyCORIS extract_locon)",
            key=layer,
            reason="ADAPTER_NOT_COMPARABLE",
        )
    return module


@dataclass
class _Sums:
    """Sums over layers; a layer's overlap counts by the product of its two norms."""

    inner: float = 0.0
    first_energy: float = 0.0
    second_energy: float = 0.0
    reading: float = 0.0
    writing: float = 0.0
    shared: int = 0
    layers: int = 0

    def add(self, first: Spectrum | None, second: Spectrum | None) -> None:
        """One layer, None where an adapter leaves it alone."""
        self.layers += first is not None or second is not None
        self.first_energy += first.energy if first is not None else 0.0
        self.second_energy += second.energy if second is not None else 0.0
        if first is None or second is None:
            return
        self.shared += 1
        weight = float(np.sqrt(first.energy) * np.sqrt(second.energy))
        reading = energy_overlap(first.right, first.shares, second.right, second.shares)
        writing = energy_overlap(first.left, first.shares, second.left, second.shares)
        self.reading += weight * reading
        self.writing += weight * writing

    def overlap(self) -> Overlap:
        """The pair's figures; zero overlap if one of them changes nothing."""
        first, second = float(np.sqrt(self.first_energy)), float(np.sqrt(self.second_energy))
        whole = first * second or 1.0
        reading, writing = (min(total / whole, 1.0) for total in (self.reading, self.writing))
        return Overlap(self.inner, first, second, reading, writing, self.shared, self.layers)
