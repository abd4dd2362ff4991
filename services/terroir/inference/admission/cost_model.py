"""What a tick costs, learnt from the ticks that were made, and when a request's pictures will be there.

A tick's cost is kept for each picture size as a table rows → seconds that never falls with rows, and read as

    seconds(rows) = the straight line between the two nearest known row counts,
    beyond the greatest known count `n`, and below the smallest, f + (s(n) - f) · rows / n,

where the fixed part `f` ≥ 0 is what the line through the smallest and the greatest known count leaves at zero rows (0
if only one count is known). A size of which nothing is known borrows from the nearest one: its rows count for
`pixels / known pixels` each, so that there too seconds are a fixed part and a part linear in rows × pixels.

Each observation moves its row count's seconds by `SMOOTHING` of the difference, and moves counts that it contradicts
with it: the newest observation wins, and a table that starts from a measurement on a busy machine heals.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from terroir.inference.engine.messages import TickCost

SMOOTHING: Final = 0.2
MOST_AT_ONCE: Final = 4.0
"""An observation counts for at most so many times what was expected: one stall of the machine is not the new normal."""
DOUBT: Final = 0.97
"""What a refused request leaves of the trust in the costs that refused it; see `CostModel.trust`."""
_TRIFLE_SECONDS: Final = 0.01
_SIMULATED: Final = 128
"""Waiting requests that are played through one by one; more are reckoned like these."""


@dataclass(frozen=True)
class Work:
    """What a request still asks of the device."""

    width: int
    height: int
    rows: int
    """Rows that it adds to each tick."""
    steps: int
    """Ticks that it still takes part in."""
    pictures: int

    @property
    def pixels(self) -> int:
        """Of each picture."""
        return self.width * self.height

    @property
    def size(self) -> tuple[int, int]:
        """Requests of one size share ticks."""
        return self.width, self.height


@dataclass(frozen=True)
class Capacity:
    """What draws together."""

    requests: int
    rows: int
    batch_rows: int
    """Most rows of one tick."""


class CostModel:
    """One event loop owns it. Before anything is known all costs are 0, which refuses nobody."""

    def __init__(self, profile: Iterable[TickCost] = ()) -> None:
        self._ticks: dict[int, _Table] = {}
        self._around: dict[int, _Around] = {}
        self._doubts: dict[int, int] = {}
        """Refusals since the last tick, by size."""
        for cost in profile:
            self.learn(cost)

    def learn(self, cost: TickCost) -> None:
        """Take a tick that was made."""
        if cost.rows > 0 and cost.pixels > 0 and math.isfinite(cost.seconds) and cost.seconds >= 0:
            self._ticks.setdefault(cost.pixels, _Table()).learn(cost.rows, cost.seconds)
            self.believe(cost.pixels)

    def learn_around(self, work: Work, before: float, after: float) -> None:
        """Take what a request took in seconds `before` its first tick (texts) and `after` its last one (decoding)."""
        seen = _Around(max(0.0, before), max(0.0, after) / max(1, work.pictures))
        known = self._around.get(work.pixels)
        self._around[work.pixels] = seen if known is None else known.towards(seen)

    def tick(self, pixels: int, rows: int) -> float:
        """Seconds of a tick; 0 while nothing is known."""
        nearest = _nearest(self._ticks, pixels)
        return 0.0 if nearest is None else self._ticks[nearest].seconds(rows * pixels / nearest)

    def alone(self, work: Work) -> float:
        """Seconds until the pictures of a request that has the device for itself."""
        return work.steps * self.tick(work.pixels, work.rows) + self._overhead(work)

    def doubt(self, pixels: int) -> None:
        """Trust the costs of a size a little less, for they refused somebody."""
        self._doubts[pixels] = self._doubts.get(pixels, 0) + 1

    def trust(self, pixels: int) -> float:
        """How much of a prediction to hold against a deadline: 1 for a size whose ticks are being made.

        Whoever is refused is not drawn, so a cost that is too high would never be seen to be wrong. After some refusals
        without a tick one request gets through, and what it takes is learnt.
        """
        return DOUBT ** self._doubts.get(pixels, 0)

    def believe(self, pixels: int) -> None:
        """Trust the costs of a size again: somebody was let in who will show what they are."""
        self._doubts.pop(pixels, None)

    def predict(self, new: Work, running: Sequence[Work], waiting: Sequence[Work], capacity: Capacity) -> float:
        """Seconds until the pictures of `new`, which waits behind `waiting`, which wait for `running`.

        Plays it through as `engine.turns` does: sizes share the device's time equally, whatever a tick of theirs costs,
        and the requests of one size share ticks of at most `capacity.batch_rows` rows. Who has made all steps leaves
        and the next ones enter. Later arrivals, whatever their priority, and loads of adapters are not foreseen.
        """
        shown = waiting[:_SIMULATED]
        seconds = self._ends(running, [*shown, new], capacity)[-1]
        unseen = (len(waiting) - len(shown)) / max(1, len(shown))
        return seconds * (1 + unseen) + self._overhead(new)

    def ends(self, running: Sequence[Work], capacity: Capacity) -> list[float]:
        """Seconds until the pictures of each of those who draw together, if nobody else comes."""
        ends = self._ends(running, [], capacity)
        return [seconds + self._overhead(work) for seconds, work in zip(ends, running, strict=True)]

    def _ends(self, running: Sequence[Work], queue: Sequence[Work], capacity: Capacity) -> list[float]:
        """Seconds until the last step of each of `running`, then of `queue`."""
        works = [*running, *queue]
        steps, ends = [float(work.steps) for work in works], [0.0] * len(works)
        drawing, entered, seconds = list(range(len(running))), len(running), 0.0
        while drawing or entered < len(works):
            while entered < len(works) and _fits([works[index] for index in drawing], works[entered], capacity):
                drawing.append(entered)
                entered += 1
            paces = self._paces([works[index] for index in drawing], capacity.batch_rows)
            left = {index: steps[index] * paces[works[index].size] for index in drawing}
            passed = min(left.values())
            seconds += passed
            drawing = []
            for index, its_left in left.items():
                if its_left > passed:
                    steps[index] -= passed / paces[works[index].size]
                    drawing.append(index)
                else:
                    ends[index] = seconds
        return ends

    def _paces(self, drawing: Sequence[Work], batch_rows: int) -> dict[tuple[int, int], float]:
        """Seconds from one step to the next, by size."""
        rows: dict[tuple[int, int], int] = {}
        for work in drawing:
            rows[work.size] = rows.get(work.size, 0) + work.rows
        return {
            (width, height): len(rows) * self._round(width * height, count, batch_rows)
            for (width, height), count in rows.items()
        }

    def _round(self, pixels: int, rows: int, batch_rows: int) -> float:
        """Seconds of the ticks in which each of one size's rows makes one step."""
        whole, rest = divmod(rows, batch_rows)
        return whole * self.tick(pixels, batch_rows) + (self.tick(pixels, rest) if rest else 0.0)

    def _overhead(self, work: Work) -> float:
        nearest = _nearest(self._around, work.pixels)
        if nearest is None:
            return 0.0
        around = self._around[nearest]
        return around.before + around.after_each * work.pictures * work.pixels / nearest


@dataclass(frozen=True)
class _Around:
    """Seconds of a request that are no ticks."""

    before: float
    after_each: float
    """For each picture."""

    def towards(self, seen: _Around) -> _Around:
        """A step towards what was seen."""
        return _Around(_smoothed(self.before, seen.before), _smoothed(self.after_each, seen.after_each))


class _Table:
    """Rows → seconds for one size, never falling with rows."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._seconds: list[float] = []

    def learn(self, rows: int, seconds: float) -> None:
        place = bisect_left(self._rows, rows)
        if place < len(self._rows) and self._rows[place] == rows:
            seconds = _smoothed(self._seconds[place], seconds)
            self._seconds[place] = seconds
        else:
            if self._rows:
                seconds = _believed(seconds, self.seconds(rows))
            self._rows.insert(place, rows)
            self._seconds.insert(place, seconds)
        self._seconds[:place] = [min(known, seconds) for known in self._seconds[:place]]
        self._seconds[place:] = [max(known, seconds) for known in self._seconds[place:]]

    def seconds(self, rows: float) -> float:
        place = bisect_left(self._rows, rows)
        if 0 < place < len(self._rows):
            left, right = self._rows[place - 1], self._rows[place]
            share = (rows - left) / (right - left)
            return (1 - share) * self._seconds[place - 1] + share * self._seconds[place]
        known = 0 if place == 0 else -1
        fixed = self._fixed()
        return fixed + (self._seconds[known] - fixed) * rows / self._rows[known]

    def _fixed(self) -> float:
        if len(self._rows) == 1:
            return 0.0
        slope = (self._seconds[-1] - self._seconds[0]) / (self._rows[-1] - self._rows[0])
        return max(0.0, self._seconds[0] - slope * self._rows[0])


def _smoothed(known: float, seen: float) -> float:
    return known + SMOOTHING * (_believed(seen, known) - known)


def _believed(seen: float, known: float) -> float:
    # From next to nothing any observation would be too much.
    return min(seen, max(MOST_AT_ONCE * known, _TRIFLE_SECONDS))


def _nearest(known: Iterable[int], pixels: int) -> int | None:
    return min(known, key=lambda size: abs(math.log(size / pixels)), default=None)


def _fits(drawing: Sequence[Work], work: Work, capacity: Capacity) -> bool:
    """As `Admission` lets requests in: one that is larger than everything draws alone."""
    if not drawing:
        return True
    return len(drawing) < capacity.requests and sum(other.rows for other in drawing) + work.rows <= capacity.rows
