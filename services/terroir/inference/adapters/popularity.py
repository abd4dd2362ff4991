"""What is asked for lately."""

from __future__ import annotations

import math
from typing import Any, Final, Generic, Protocol, TypeVar

from terroir.common.clock import Clock

HALF_LIFE_SECONDS: Final = 3600.0
MAX_REGIONS: Final = 4096


class _Sortable(Protocol):
    def __hash__(self) -> int: ...
    def __lt__(self, other: Any, /) -> bool: ...


Thing = TypeVar("Thing", bound=_Sortable)


class Popularity(Generic[Thing]):
    """Counts of requests by what they name that halve every hour. They live in memory: a restart begins from zero."""

    def __init__(self, clock: Clock, most: int = MAX_REGIONS) -> None:
        """Of more than `most` things the less popular half is forgotten."""
        self._clock = clock
        self._most = most
        self._began = clock.monotonic()
        self._scores: dict[Thing, float] = {}
        """log2 of each count at `_began`: an older count needs no touching to weigh less, because newer ones grow."""

    def count(self, thing: Thing, times: int = 1) -> None:
        """So many more requests for it."""
        fresh = (self._clock.monotonic() - self._began) / HALF_LIFE_SECONDS + math.log2(times)
        before = self._scores.get(thing)
        self._scores[thing] = fresh if before is None else _log2_sum(before, fresh)
        if len(self._scores) > self._most:
            self._scores = {kept: self._scores[kept] for kept in self.most(self._most // 2)}

    def of(self, thing: Thing) -> float:
        """Its count of today."""
        elapsed = (self._clock.monotonic() - self._began) / HALF_LIFE_SECONDS
        return 2.0 ** (self._scores[thing] - elapsed) if thing in self._scores else 0.0

    def most(self, number: int) -> list[Thing]:
        """The most popular ones, the first one most."""
        return sorted(self._scores, key=lambda thing: (-self._scores[thing], thing))[:number]


def _log2_sum(a: float, b: float) -> float:
    """log2(2^a + 2^b) without leaving the range of floats."""
    high, low = max(a, b), min(a, b)
    return high + math.log1p(2.0 ** (low - high)) / math.log(2)
