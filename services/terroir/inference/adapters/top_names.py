"""Label values for names that users make: a few popular ones have their own, so that series stay bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from terroir.common.clock import Clock
from terroir.inference.adapters.popularity import Popularity

OTHER: Final = "other"
"""Stands for every name without a label of its own; no resource is called so, names of resources have a slash."""
MOST_LABELS: Final = 100
"""Hard limit, whatever is asked for."""
_LEAD: Final = 2.0
"""A newcomer must be asked for this many times as often as whom it replaces, or two would take turns."""
_REPLACE_SECONDS: Final = 60.0
"""Between two replacements: each makes a series that Prometheus keeps for as long as it keeps anything."""


class TopNames:
    """At most so many names at a time are labels: the first ones, then those that are asked for clearly more often.

    One event loop owns it.
    """

    def __init__(self, most: int, clock: Clock, on_left: Callable[[str], None]) -> None:
        """`on_left` hears of a name that is a label no more. Raises ValueError above MOST_LABELS."""
        if not 1 <= most <= MOST_LABELS:
            raise ValueError(f"{most} labels of names (at least 1, at most {MOST_LABELS}: each is a series for years)")
        self._most = most
        self._clock = clock
        self._on_left = on_left
        self._popularity = Popularity[str](clock)
        self._labels: set[str] = set()
        self._replaced_at = clock.monotonic()

    def label(self, name: str) -> str:
        """Count a use of a name and return its label."""
        self._popularity.count(name)
        if name in self._labels:
            return name
        if len(self._labels) < self._most:
            self._labels.add(name)
            return name
        return name if self._replaces(name) else OTHER

    def _replaces(self, name: str) -> bool:
        now = self._clock.monotonic()
        if now - self._replaced_at < _REPLACE_SECONDS:
            return False
        least = min(self._labels, key=self._popularity.of)
        if self._popularity.of(name) < _LEAD * self._popularity.of(least):
            return False
        self._replaced_at = now
        self._labels.remove(least)
        self._on_left(least)
        self._labels.add(name)
        return True
