"""Who may draw now, who waits, and who is refused at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from terroir.inference.errors import QueueFull

_FIRST_GUESS_SECONDS: Final = 2.0
_LEAST_RETRY_SECONDS: Final = 0.5
_SMOOTHING: Final = 0.2


@dataclass(eq=False)
class Ticket:
    """A place in the queue; its turn comes when `turn` is done."""

    position: int
    """Requests before this one when it came."""
    turn: asyncio.Future[None]
    admitted: bool = False


class Admission:
    """First come, first served: `max_active` requests draw together, `max_waiting` wait. One event loop owns it."""

    def __init__(self, max_active: int, max_waiting: int) -> None:
        self._max_active = max_active
        self._max_waiting = max_waiting
        self._active = 0
        self._waiting: deque[Ticket] = deque()
        self._seconds_each = _FIRST_GUESS_SECONDS

    @property
    def active(self) -> int:
        """Requests that draw."""
        return self._active

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[Ticket]:
        """Take a place, which is given back at the end; raises QueueFull with the time after which to try again."""
        if self._active >= self._max_active and len(self._waiting) >= self._max_waiting:
            raise self._full()
        ticket = Ticket(len(self._waiting), asyncio.get_running_loop().create_future())
        self._waiting.append(ticket)
        self._call_next()
        try:
            yield ticket
        finally:
            if ticket.admitted:
                self._active -= 1
                self._call_next()
            elif ticket in self._waiting:
                self._waiting.remove(ticket)

    def drawn(self, seconds: float) -> None:
        """Learn how long a request takes, for retry hints."""
        self._seconds_each += _SMOOTHING * (seconds - self._seconds_each)

    def _full(self) -> QueueFull:
        # Running requests share the device, so about one leaves in the time that one takes.
        retry = max(_LEAST_RETRY_SECONDS, self._seconds_each)
        return QueueFull(
            f"{self._active} requests draw and {len(self._waiting)} wait, at most {self._max_waiting} may wait; "
            f"try again in {retry:.1f} s or raise TERROIR_INFERENCE_MAX_QUEUE_SIZE",
            retry_after_seconds=retry,
        )

    def _call_next(self) -> None:
        while self._waiting and self._active < self._max_active:
            ticket = self._waiting.popleft()
            if not ticket.turn.done():  # a caller who gave up cancelled it
                self._active += 1
                ticket.admitted = True
                ticket.turn.set_result(None)
