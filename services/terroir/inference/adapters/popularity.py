"""Which regions are asked for lately."""

from __future__ import annotations

import math
from typing import Final

from terroir.common.clock import Clock

HALF_LIFE_SECONDS: Final = 3600.0
MAX_REGIONS: Final = 4096


class Popularity:
    """Counts of requests by region that halve every hour. They live in memory: a restart begins from zero."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._scores: dict[str, float] = {}
        """log2 of each count at `_began`: an older count needs no touching to weigh less, because newer ones grow."""

    def count(self, region: str) -> None:
        """One more request for a region."""
        elapsed = (self._clock.monotonic() - self._began) / HALF_LIFE_SECONDS
        before = self._scores.get(region)
        self._scores[region] = elapsed if before is None else _log2_sum(before, elapsed)
        if len(self._scores) > MAX_REGIONS:
            kept = self.most(MAX_REGIONS // 2)
            self._scores = {region: self._scores[region] for region in kept}

    def of(self, region: str) -> float:
        """Today's count of a region."""
        elapsed = (self._clock.monotonic() - self._began) / HALF_LIFE_SECONDS
        return 2.0 ** (self._scores[region] - elapsed) if region in self._scores else 0.0

    def most(self, number: int) -> list[str]:
        """The most popular regions, the first one most."""
        return sorted(self._scores, key=lambda region: (-self._scores[region], region))[:number]


def _log2_sum(a: float, b: float) -> float:
    """log2(2^a + 2^b) without leaving the range of floats."""
    high, low = max(a, b), min(a, b)
    return high + math.log1p(2.0 ** (low - high)) / math.log(2)
