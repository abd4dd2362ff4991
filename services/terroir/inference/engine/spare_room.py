"""How many rows a call has room for that nobody who waits would miss."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable
from typing import Final

from terroir.inference.engine.tick_costs import TickCosts

LATER_SHARE: Final = 0.05
"""A call may take so much longer for the sake of spare rows: less than requests differ from each other anyway."""
_LOOK_EVERY: Final = 64
"""Calls beside each other after which one goes without spare rows, to see what they cost: the machine may have become
faster, and the old cost of a call without them would excuse too many."""


class SpareRoom:
    """Knows what calls cost, by shape and by whether their rows wear different compositions, which takes other plans.

    Where rows cost linearly, as on a CPU, there is no room beside anybody, and where few rows cost as much as one there
    is plenty. What was never tried counts as linear, so that no request is the one to find out; calls of spare rows
    alone, which are bounded in time, are.
    """

    def __init__(self, max_batch_rows: int, tick_seconds: float, padding: Callable[[int], int] | None = None) -> None:
        """`tick_seconds` bounds calls of spare rows alone.

        `padding` tells the rows that are added to a number of them where calls are compiled. There spare rows fill the
        padding, and never have a call compiled that nobody else asked for: that takes minutes.
        """
        self._max_batch_rows, self._tick_seconds = max_batch_rows, tick_seconds
        self._padding = padding
        self._costs = TickCosts()
        self._compiled: set[tuple[Hashable, int]] = set()
        self._beside = 0
        self.shared = False
        """Whether there was room beside those who waited last."""

    def beside(self, shape: Hashable, rows: int, *, mixed: bool, mixed_with: bool) -> int:
        """Rows that may join `rows` of somebody who waits.

        `mixed` says whether these wear different compositions, `mixed_with` whether all together would.
        """
        if self._beside >= _LOOK_EVERY:
            self._beside = 0
            return 0
        room = self._beside_by_costs(shape, rows, mixed=mixed, mixed_with=mixed_with)
        self.shared = room > 0
        return room

    def alone(self, shape: Hashable, least: int, *, mixed: bool) -> int:
        """Rows of a call that only spare drawings share, of which the first has `least`; it always goes."""
        for rows in range(self._max_batch_rows, least, -1):
            if self._known(shape, self._padded(rows)) and self._alone(shape, least, rows, mixed) <= self._tick_seconds:
                return rows
        return least

    def learn(self, shape: Hashable, rows: int, seconds: float, *, mixed: bool, beside: bool) -> None:
        """Take a call that was made, `beside` with spare rows and those of somebody who waits."""
        self._costs.learn(self._kind(shape, mixed), self._padded(rows), seconds)
        if self._padding is not None:
            self._compiled.add((shape, self._padded(rows)))
        self._beside += beside

    def refuse(self, shape: Hashable, rows: int, *, mixed: bool) -> None:
        """Memory did not suffice for so many rows."""
        self._costs.refuse(self._kind(shape, mixed), self._padded(rows))

    def _beside_by_costs(self, shape: Hashable, rows: int, *, mixed: bool, mixed_with: bool) -> int:
        without, kind = self._padded(rows), self._kind(shape, mixed_with)
        least = self._costs.least(self._kind(shape, mixed), without)
        for more in range(self._max_batch_rows - rows, 0, -1):
            together = self._padded(rows + more)
            if self._padding is not None and together == without:
                return more
            if self._known(shape, together) and self._growth(kind, without, together, least) <= 1 + LATER_SHARE:
                return more
        return 0

    def _growth(self, kind: Hashable, without: int, together: int, least: float | None) -> float:
        """How many times as long a call takes with spare rows as one that takes `least` seconds without, at most."""
        most = self._costs.most(kind, together)
        if least is None or most is None:
            return together / without
        return math.inf if math.isinf(least) else most / max(least, sys.float_info.min)

    def _alone(self, shape: Hashable, least: int, rows: int, mixed: bool) -> float:
        most = self._costs.most(self._kind(shape, mixed), self._padded(rows))
        if most is None:  # never tried: as much for each row as one drawing by itself
            first = self._costs.most(self._kind(shape, False), self._padded(least))
            most = math.inf if first is None else first * self._padded(rows) / self._padded(least)
        return most

    def _kind(self, shape: Hashable, mixed: bool) -> Hashable:
        """Calls of one kind are compared by their rows; compiled ones wear the same whatever that is."""
        return shape, mixed and self._padding is None

    def _padded(self, rows: int) -> int:
        return rows if self._padding is None else rows + self._padding(rows)

    def _known(self, shape: Hashable, padded: int) -> bool:
        return self._padding is None or (shape, padded) in self._compiled
