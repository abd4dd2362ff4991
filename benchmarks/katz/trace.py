"""Requests as Katz saw them: which adapters each one wears."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

ADAPTERS: Final = 7000
"""Distinct adapters of one service."""
TWO_SHARE: Final = 0.91
"""Of service A's requests wear two adapters, the others one."""
EXPONENT: Final = 1.77
"""Of the Zipf law of popularity, with EVEN_SHARE: an LRU cache of ten then loads 0.54 a request, as published."""
EVEN_SHARE: Final = 0.05
"""Of the calls go to any adapter alike: by Zipf's law alone most of them would never be called."""


class Trace:
    """An endless, seeded sequence of requests; each is the numbers of its adapters, 0 being the most popular."""

    def __init__(self, seed: int, adapters: int = ADAPTERS, exponent: float = EXPONENT) -> None:
        self._chance = random.Random(seed)
        self._numbers = range(adapters)
        zipf = [1 / (number + 1) ** exponent for number in self._numbers]
        total = sum(zipf)
        shares = ((1 - EVEN_SHARE) * weight / total + EVEN_SHARE / adapters for weight in zipf)
        self._weights = list(accumulate(shares))

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        while True:
            count = 2 if self._chance.random() < TWO_SHARE else 1
            drawn: set[int] = set()
            while len(drawn) < count:
                drawn.update(self._chance.choices(self._numbers, cum_weights=self._weights))
            yield tuple(sorted(drawn))
