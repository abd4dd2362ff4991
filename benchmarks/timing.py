"""Seconds of two things that are compared, taken in turns so that what else the machine does hits both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Pair:
    """Medians (p50) of both sides, in seconds."""

    ours: float
    peer: float


QUANTILES: Final = ("p50", "p99")


def two_quantiles(taken: Sequence[float]) -> tuple[float, float]:
    """Median and 99th percentile, in the order of QUANTILES."""
    return statistics.median(taken), sorted(taken)[min(len(taken) - 1, int(len(taken) * 0.99))]


def in_turns(count: int, ours: Callable[[int], object], peer: Callable[[int], object]) -> Pair:
    """Call both `count` times with the number of the turn; who goes first alternates."""
    taken: dict[str, list[float]] = {"ours": [], "peer": []}
    for turn in range(count):
        sides = [("ours", ours), ("peer", peer)]
        for name, call in sides if turn % 2 == 0 else reversed(sides):
            since = time.perf_counter()
            call(turn)
            taken[name].append(time.perf_counter() - since)
    return Pair(statistics.median(taken["ours"]), statistics.median(taken["peer"]))
