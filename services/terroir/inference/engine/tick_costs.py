"""What denoiser calls take by their rows: bounds that are only as tight as the calls that were made.

`admission.cost_model` predicts when pictures will be there, and errs to either side; here an error makes somebody late
who waits. So between two row counts that were tried costs lie on a straight line, and beyond them the worst is assumed
that never falling costs, which grow with rows no less than in proportion to the largest known, allow.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Hashable
from statistics import median_low
from typing import Final

_REMEMBERED: Final = 7
"""Calls of one row count, whose median counts: merging and a busy machine make single ones slow."""
FORGOTTEN_AFTER: Final = 256
"""Calls of a kind after which a row count that was not tried again is unknown: it may have become cheaper."""
_KINDS: Final = 64


class TickCosts:
    """Seconds by kind of call and rows."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, _Rows] = OrderedDict()

    def learn(self, kind: Hashable, rows: int, seconds: float) -> None:
        """Take a call that was made."""
        self._of(kind).learn(rows, seconds)

    def refuse(self, kind: Hashable, rows: int) -> None:
        """Memory did not suffice for so many rows: more than half of them cost infinitely much until it is forgotten.

        Half, because each try makes somebody late, and what had room before may have none any more.
        """
        self._of(kind).refuse(rows)

    def least(self, kind: Hashable, rows: int) -> float | None:
        """Seconds that a call takes at least; None where nothing is known of its kind."""
        known = self._kinds.get(kind)
        return None if known is None else known.seconds(rows, below=rows / known.smallest, above=1.0)

    def most(self, kind: Hashable, rows: int) -> float | None:
        """Seconds that a call takes at most; None where nothing is known of its kind."""
        known = self._kinds.get(kind)
        return None if known is None else known.seconds(rows, below=1.0, above=rows / known.largest)

    def _of(self, kind: Hashable) -> _Rows:
        if kind not in self._kinds:
            self._kinds[kind] = _Rows()
            if len(self._kinds) > _KINDS:
                self._kinds.popitem(last=False)
        self._kinds.move_to_end(kind)
        return self._kinds[kind]


class _Rows:
    """Row counts of one kind of call."""

    def __init__(self) -> None:
        self._calls = 0
        self._seen: dict[int, deque[float]] = {}
        self._when: dict[int, int] = {}
        self._counts: list[int] = []
        self._costs: list[float] = []

    @property
    def smallest(self) -> int:
        """Rows of the smallest call that is known."""
        return self._counts[0]

    @property
    def largest(self) -> int:
        """Rows of the largest call that is known."""
        return self._counts[-1]

    def learn(self, rows: int, seconds: float) -> None:
        before = self._seen.get(rows)
        seen = deque[float](maxlen=_REMEMBERED) if before is None or math.inf in before else before
        seen.append(seconds)
        self._note(rows, seen)

    def refuse(self, rows: int) -> None:
        for count in {*self._seen, rows // 2 + 1, rows}:
            if count > rows // 2:
                self._note(count, deque([math.inf], maxlen=_REMEMBERED))

    def seconds(self, rows: int, *, below: float, above: float) -> float:
        """Between known counts a straight line; outside of them the nearest one, times `below` or `above`."""
        place = bisect_left(self._counts, rows)
        if place == len(self._counts):
            return self._costs[-1] * above
        if self._counts[place] == rows:
            return self._costs[place]
        if place == 0:
            return self._costs[0] * below
        (left, right), (low, high) = self._counts[place - 1 : place + 1], self._costs[place - 1 : place + 1]
        return low + (high - low) * (rows - left) / (right - left) if high > low else low

    def _note(self, rows: int, seen: deque[float]) -> None:
        self._calls += 1
        self._seen[rows], self._when[rows] = seen, self._calls
        for old in [old for old, when in self._when.items() if self._calls - when >= FORGOTTEN_AFTER]:
            del self._seen[old], self._when[old]
        self._counts = sorted(self._seen)
        self._costs = [median_low(self._seen[count]) for count in self._counts]
