"""Ways to turn overlaps into one score; calibration picks one and fits the curve that makes it a share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.compatibility.drawing import WEIGHT
from benchmarks.compatibility.rank_statistics import spearman
from terroir.lora.compatibility import Overlap


@dataclass(frozen=True)
class Candidate:
    """One score; higher means that less of the lesser style is expected to survive."""

    name: str
    score: Callable[[Overlap], float]
    knows_opposites: bool = True
    """Whether it is at its worst for a change and its opposite, which cancel; no calibration pair is like that, so one
    that does not know cannot be chosen, however well it ranks."""


def _imbalance(overlap: Overlap) -> float:
    low, high = sorted((overlap.first_norm, overlap.second_norm))
    return 1 - low / high if high else 0.0


def _superposed(overlap: Overlap) -> float:
    """What is missed of the worse-off style if pictures answered to weights linearly: ‖w Δ2 - (1 - w) Δ1‖ / ‖Δ1‖."""
    strength = max(overlap.first_norm, overlap.second_norm) / min(overlap.first_norm, overlap.second_norm)
    rest = 1 - WEIGHT
    return (WEIGHT * strength) ** 2 - 2 * WEIGHT * rest * strength * overlap.cosine + rest**2


CANDIDATES: Final = (
    Candidate("input overlap", lambda o: o.input_overlap, knows_opposites=False),
    Candidate("output overlap", lambda o: o.output_overlap, knows_opposites=False),
    Candidate("|cosine|", lambda o: abs(o.cosine), knows_opposites=False),
    Candidate("norm imbalance", _imbalance, knows_opposites=False),
    Candidate("-input overlap", lambda o: -o.input_overlap, knows_opposites=False),
    Candidate("-output overlap", lambda o: -o.output_overlap, knows_opposites=False),
    Candidate("-cosine", lambda o: -o.cosine),
    Candidate("linear superposition", _superposed),
    Candidate("-(input overlap + cosine) / 2", lambda o: -(o.input_overlap + o.cosine) / 2),
    Candidate("-(output overlap + cosine) / 2", lambda o: -(o.output_overlap + o.cosine) / 2),
    Candidate("-inner product / energy of the stronger", lambda o: -o.inner / max(o.first_norm, o.second_norm) ** 2),
)
"""Overlap is interference, as the papers have it for a subject and a style; its opposite, what is alike goes together;
strength; linear algebra; and what combines an overlap with a sign."""


def choose(overlaps: Sequence[Overlap], survival: Sequence[float]) -> Candidate:
    """The candidate that knows opposites and ranks these pairs best."""
    eligible = [candidate for candidate in CANDIDATES if candidate.knows_opposites]
    return max(eligible, key=lambda candidate: -spearman([candidate.score(o) for o in overlaps], survival))


def fit(cosines: Sequence[float], survival: Sequence[float]) -> tuple[float, float]:
    """Cosine at which half is lost and the spread of the logistic curve, by least squares on a grid.

    Survival is cut to 0 … 1, for the curve tells a share.
    """
    found, lost = np.asarray(cosines), 1 - np.clip(survival, 0, 1)
    grid = [(half, spread) for half in np.arange(0.0, 0.3, 0.005) for spread in np.arange(0.01, 0.1, 0.005)]
    errors = [float(np.sum((1 / (1 + np.exp((found - half) / spread)) - lost) ** 2)) for half, spread in grid]
    half, spread = grid[int(np.argmin(errors))]
    return round(float(half), 3), round(float(spread), 3)
