"""How many units are drawn at once, and who comes next."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from itertools import count


class Slot:
    """One of them, taken; to be given back once."""

    def __init__(self, slots: Slots) -> None:
        self._slots: Slots | None = slots

    def give_back(self) -> None:
        """Let the next one have it."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.freed()


class Slots:
    """A semaphore whose waiters have places: smaller ones first, then first come, first served. For one event loop."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tickets = count()

    async def take(self, place: int) -> Slot:
        """Wait for a slot."""
        if self._free and not self._waiting:
            self._free -= 1
            return Slot(self)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (place, next(self._tickets), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.freed()  # it was given in the same moment
            raise
        return Slot(self)

    def freed(self) -> None:
        """A slot came free."""
        while self._waiting:
            _, _, turn = heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
