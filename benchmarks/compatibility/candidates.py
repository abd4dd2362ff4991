"""Ways to turn overlaps into one score, all without a parameter that was fitted; calibration picks one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.compatibility.rank_statistics import spearman
from terroir.lora.compatibility import Overlap, interference


@dataclass(frozen=True)
class Candidate:
    """One score; higher means that less of the lesser style is expected to survive."""

    name: str
    score: Callable[[Overlap], float]


def _overlap(overlap: Overlap) -> float:
    return float(np.sqrt(overlap.input_overlap * overlap.output_overlap))


def _imbalance(overlap: Overlap) -> float:
    low, high = sorted((overlap.first_norm, overlap.second_norm))
    return 1 - low / high if high else 0.0


CANDIDATES: Final = (
    Candidate("input overlap", lambda o: o.input_overlap),
    Candidate("output overlap", lambda o: o.output_overlap),
    Candidate("joint overlap", lambda o: o.joint_overlap),
    Candidate("|cosine|", lambda o: abs(o.cosine)),
    Candidate("1 - cosine", lambda o: 1 - o.cosine),
    Candidate("1 - input overlap", lambda o: 1 - o.input_overlap),
    Candidate("1 - output overlap", lambda o: 1 - o.output_overlap),
    Candidate("overlap · (1 - cosine)", lambda o: _overlap(o) * (1 - o.cosine)),
    Candidate("norm imbalance", _imbalance),
    Candidate("predicted loss", interference),
)
"""The papers' hypothesis (overlap is interference), its opposite (what is alike goes together), strength, and what
linear superposition predicts."""


def choose(overlaps: list[Overlap], survival: list[float]) -> Candidate:
    """The candidate whose score ranks these pairs best."""
    return max(CANDIDATES, key=lambda candidate: -spearman([candidate.score(o) for o in overlaps], survival))
