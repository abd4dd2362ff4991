"""The engine's part of a request as spans, made of its events: it is a process of its own and knows of no trace."""

from __future__ import annotations

import asyncio
from typing import Self

from terroir.common.clock import Clock
from terroir.common.tracing import reason_of, record, tracing_on
from terroir.inference.engine.messages import DrawJob, Drawn, Finished, JobEvent, Stepped, TickCost


class DrawingSpans:
    """Three in a row: until the first tick, all ticks, and decoding. One span a step would say no more and cost much.

    A context manager around the reading of a job's events, that makes nothing current. Times are those at which events
    were read.
    """

    def __init__(self, job: DrawJob, turn: float, clock: Clock) -> None:
        """`turn` is when the job was given to the engine."""
        self._job, self._turn, self._clock = job, turn, clock
        self._asked_for = tracing_on()
        self._first: float | None = None
        self._last = turn
        self._decoded: float | None = None
        self._newest: Stepped | None = None
        self._ticks: list[TickCost] = []

    def take(self, event: JobEvent) -> None:
        """Something happened in the engine."""
        if not self._asked_for:
            return
        now = self._clock.monotonic()
        if isinstance(event, Stepped):
            if self._first is None:
                self._first = max(self._turn, now - event.tick.seconds)
            self._last, self._newest = now, event
            self._ticks.append(event.tick)
        elif isinstance(event, Drawn) and self._decoded is None:
            self._decoded = now  # the first: all pictures of a request come together
        elif isinstance(event, Finished):
            self._tell("", cancelled=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit)
            self._tell("" if cancelled else reason_of(error), cancelled=cancelled)

    def _tell(self, failed: str, *, cancelled: bool) -> None:
        """Once; `failed` and `cancelled` are of the part that was interrupted."""
        if not self._asked_for:
            return
        self._asked_for = False
        now, newest = self._clock.monotonic(), self._newest
        ended = {"cancelled": True} if cancelled else {}
        if newest is None or self._first is None:
            record("prepare drawing", self._turn, now, failed=failed, **ended)
            return
        record("prepare drawing", self._turn, self._first)
        denoised = newest.step == newest.total
        self._tell_ticks(newest, self._first, self._last if denoised else now, "" if denoised else failed)
        if not denoised:
            return
        if self._decoded is not None:
            record("decode", self._last, self._decoded, pictures=len(self._job.seeds))
        else:
            record("decode", self._last, now, failed=failed, **ended)

    def _tell_ticks(self, newest: Stepped, begun: float, ended: float, failed: str) -> None:
        """One that was cancelled is told by its `steps` below `total_steps`."""
        job, rows = self._job, [tick.rows for tick in self._ticks]
        record(
            "denoise", begun, ended, failed=failed, steps=newest.step, total_steps=newest.total, sampler=job.sampler,
            width=job.width, height=job.height, pictures=len(job.seeds), adapters=len(job.composition.parts),
            plan=newest.plan, compute_seconds=sum(tick.seconds for tick in self._ticks), batch_rows_most=max(rows),
            batch_rows_mean=sum(rows) / len(rows),
        )  # fmt: skip
