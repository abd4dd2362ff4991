"""How long calls take, and how far the host runs ahead of the device."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch


class Mark(Protocol):
    """A place in the device's queue, like `torch.cuda.Event`."""

    def synchronize(self) -> None:
        """Wait until the device is there."""
        ...

    def elapsed_time(self, end_event: Any, /) -> float:
        """Milliseconds from here to a later mark of the same kind; both were reached."""
        ...


@dataclass(frozen=True)
class _Call:
    key: Hashable
    begin: Mark
    end: Mark

    def seconds(self) -> float:
        """Of the device; waits for it."""
        self.end.synchronize()
        return self.begin.elapsed_time(self.end) / 1000


class Pace:
    """Times calls. A device with a queue is kept busy: while it works on a call, the host prepares the next, no more.

    Were the host further ahead, cancelling would come too late; if it waited for each call, the device would idle
    between two. So a call's time is known one call later, and until then that of the last one of its kind counts.
    """

    def __init__(self, clock: Callable[[], float], mark: Callable[[], Mark] | None) -> None:
        """`mark` marks the end of the device's queue; None where calls are over when they return, as on a CPU."""
        self._clock, self._mark = clock, mark
        self._began, self._begin = 0.0, None if mark is None else mark()
        self._running: _Call | None = None
        self._known: dict[Hashable, float] = {}

    def begin(self) -> None:
        """A call comes next."""
        self._began = self._clock()
        if self._mark is not None:
            self._begin = self._mark()

    def end(self, kind: Hashable) -> float:
        """Seconds of the call that was handed over since `begin`; calls of a kind take about equally long."""
        if self._mark is None or self._begin is None:
            return self._clock() - self._began
        before, self._running = self._running, _Call(kind, self._begin, self._mark())
        if before is not None:
            self._known[before.key] = before.seconds()
        if kind not in self._known:
            self._known[kind] = self._running.seconds()
        return self._known[kind]


def pace_of(device: str, clock: Callable[[], float]) -> Pace:
    """For a device by torch's name."""
    return Pace(clock, _mark if device == "cuda" else None)


def _mark() -> Mark:
    event: Any = torch.cuda.Event(enable_timing=True)  # untyped in torch
    event.record()
    mark: Mark = event
    return mark
