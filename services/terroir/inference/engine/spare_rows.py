"""Drawings that nobody waits for, and which of them a call takes along."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from terroir.inference.engine.decoding import Encoded
from terroir.inference.engine.drawing import Drawing, is_guided, rows_of
from terroir.inference.engine.messages import DrawJob
from terroir.inference.engine.spare_room import SpareRoom

_JOINING_SHARE: Final = 0.1
"""Of the time of calls with somebody who waits, for spare drawings that join beside them."""


@dataclass(frozen=True)
class Filling:
    """What a call takes along."""

    drawings: Sequence[Drawing] = ()
    offered: int = 0
    """Rows that there was room for and spare work at hand: what would have been filled, had all of it joined."""


class SpareRows:
    """Jobs in the order in which they came; a drawing that gets no rows is paused by that alone and keeps its latents.

    No turns are taken here, unlike among those somebody waits for: whoever came first is drawn to its end first, for
    another membership of a call costs the merging of its weights. And a job joins only when there are rows for it that
    no drawing fills, so that of many that wait few take memory.
    """

    def __init__(
        self, room: SpareRoom, join: Callable[[DrawJob, Encoded | None], Drawing | None],
        lane: Callable[[Drawing], Hashable], clock: Callable[[], float],
    ) -> None:  # fmt: skip
        """`join` begins a drawing, or says why not and returns None; drawings of one `lane` may share a call."""
        self._room, self._begin, self._lane, self._clock = room, join, lane, clock
        self._waiting: deque[tuple[DrawJob, Encoded | None]] = deque()
        self._drawings: list[Drawing] = []
        self._owed = 0.0
        """Seconds by which those who wait were made late by joins, and that they have not been paid back."""
        self._joined = False
        """Whether one joined instead of the last call alone."""

    def __bool__(self) -> bool:
        return bool(self._waiting or self._drawings)

    def __iter__(self) -> Iterator[Drawing]:
        yield from list(self._drawings)

    def put(self, job: DrawJob, encoded: Encoded | None) -> None:
        """Let a job wait for rows."""
        self._waiting.append((job, encoded))

    def cancel(self, job_id: str) -> None:
        """Forget a job that has not joined."""
        self._waiting = deque((job, encoded) for job, encoded in self._waiting if job.id != job_id)

    def remove(self, drawing: Drawing) -> None:
        """Let a drawing leave; ValueError if it is not there."""
        self._drawings.remove(drawing)

    def beside(self, lane: Hashable, group: Sequence[Drawing], *, may_join: bool) -> Filling:
        """What joins a call of those somebody waits for; at most one job begins to draw, if any `may_join`."""
        ready, alike = self._of(lane), self._alike(group[0].job)
        if not ready and not alike:
            return Filling()
        compositions = {drawing.job.composition for drawing in group}
        every = compositions | {job.composition for job in (*(drawing.job for drawing in ready), *alike)}
        rows = sum(drawing.row_count for drawing in group)
        room = self._room.beside(lane, rows, mixed=len(compositions) > 1, mixed_with=len(every) > 1)
        offered = sum(_filling([*_rows(ready), *map(rows_of, alike)], room))
        if may_join and self._owed <= 0:
            began = self._clock()
            if self._join_one(alike, room - sum(_filling(_rows(ready), room))):
                self._owed += self._clock() - began
        return Filling(self._fitting(lane, room), offered)

    def alone(self) -> tuple[Hashable, Filling] | None:
        """A call of spare drawings only; None where one joined instead, so that others are looked for first.

        Joins and calls alternate, and so drawings end one by one: many that ended in one call would leave its rows
        empty until as many had joined.
        """
        self._owed = 0.0
        if not self._drawings:
            self._join_one([self._waiting[0][0]], rows_of(self._waiting[0][0]))
            return None
        first = self._drawings[0]
        lane = self._lane(first)
        ready, alike = self._of(lane), self._alike(first.job)
        compositions = {job.composition for job in (*(drawing.job for drawing in ready), *alike)}
        room = self._room.alone(lane, first.row_count, mixed=len(compositions) > 1)
        self._joined = not self._joined and self._join_one(alike, room - sum(_filling(_rows(ready), room)))
        if self._joined:
            return None
        return lane, Filling(self._fitting(lane, room), sum(_filling([*_rows(ready), *map(rows_of, alike)], room)))

    def passed(self, seconds: float) -> None:
        """A call of those somebody waits for took so long."""
        self._owed = max(0.0, self._owed - _JOINING_SHARE * seconds)

    def _of(self, lane: Hashable) -> list[Drawing]:
        return [drawing for drawing in self._drawings if self._lane(drawing) == lane]

    def _alike(self, model: DrawJob) -> list[DrawJob]:
        """Jobs that wait and are of one's size: most likely of its shape, which only a drawing has."""
        size = model.width, model.height, is_guided(model)
        return [job for job, _ in self._waiting if (job.width, job.height, is_guided(job)) == size]

    def _join_one(self, jobs: Iterable[DrawJob], rows: int) -> bool:
        """Whether the first of these that has no more rows tried to begin."""
        job = next((job for job in jobs if rows_of(job) <= rows), None)
        if job is None:
            return False
        entry = next(entry for entry in self._waiting if entry[0] is job)
        self._waiting.remove(entry)
        drawing = self._begin(*entry)
        if drawing is not None:
            self._drawings.append(drawing)
        return True

    def _fitting(self, lane: Hashable, room: int) -> list[Drawing]:
        ready = self._of(lane)
        return [drawing for drawing, rows in zip(ready, _filling(_rows(ready), room), strict=True) if rows]


def _rows(drawings: Iterable[Drawing]) -> list[int]:
    return [drawing.row_count for drawing in drawings]


def _filling(wanted: Iterable[int], room: int) -> list[int]:
    """The rows of each that fits beside those before it, else 0."""
    filled = []
    for rows in wanted:
        filled.append(rows if rows <= room else 0)
        room -= filled[-1]
    return filled
