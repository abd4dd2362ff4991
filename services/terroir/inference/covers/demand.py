"""What callers ask for lately, so that the most wanted is drawn first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from terroir.common.clock import Clock
from terroir.inference.adapters.popularity import Popularity
from terroir.inference.covers.units import Shape
from terroir.inference.delivery.picture_files import PictureFormat

_MOST: Final = 65_536
"""Contents by region that are told apart."""
_FOLDED: Final = 16_384


@dataclass(frozen=True, order=True)
class Entry:
    """A content in a region, as it is asked for."""

    region: str
    content: str
    """Digest of its key."""
    width: int
    height: int
    format: PictureFormat
    count: int


class Demand:
    """Counts that halve every hour, in memory alone. One event loop owns it."""

    def __init__(self, clock: Clock) -> None:
        self._popularity = Popularity[Entry](clock, most=_MOST)
        self._fresh: dict[tuple[str, str, Shape, int], int] = {}
        """Counted since the last fold: thousands of answers a second must cost next to nothing each."""

    def count(self, region: str, content: str, shape: Shape, count: int) -> None:
        """Somebody asked for it."""
        asked = (region, content, shape, count)
        self._fresh[asked] = self._fresh.get(asked, 0) + 1
        if len(self._fresh) >= _FOLDED:
            self._fold()

    def _fold(self) -> None:
        fresh, self._fresh = self._fresh, {}
        for (region, content, shape, count), times in fresh.items():
            self._popularity.count(Entry(region, content, shape.width, shape.height, shape.format, count), times)

    def of_region(self, region: str, most: int) -> list[tuple[float, Entry]]:
        """The most wanted of a region with their counts, the first one most."""
        self._fold()
        entries = [entry for entry in self._popularity.most(_MOST) if entry.region == region][:most]
        return [(self._popularity.of(entry), entry) for entry in entries]
