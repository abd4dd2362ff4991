"""Events of one request on their way to a reader who may be slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from terroir.common.errors import TerroirError
from terroir.inference.engine.messages import Drawn, Finished, JobEvent, Previewed


class Mailbox:
    """Bounded by nature: at most 150 steps, 16 pictures, and of previews only the newest of each picture."""

    def __init__(self) -> None:
        self._events: list[JobEvent | TerroirError] = []
        self._arrived = asyncio.Event()

    def post(self, event: JobEvent | TerroirError) -> None:
        """Put an event in; a preview replaces the one of the same picture that nobody has read yet.

        Finished pictures make all waiting previews of theirs useless.
        """
        if isinstance(event, Previewed | Drawn):
            self._events = [e for e in self._events if not (isinstance(e, Previewed) and e.index == event.index)]
        self._events.append(event)
        self._arrived.set()

    async def read(self) -> AsyncGenerator[JobEvent]:
        """Events until `Finished`; raises the TerroirError that was posted instead of one."""
        while True:
            await self._arrived.wait()
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, TerroirError):
                    raise event
                yield event
                if isinstance(event, Finished):
                    return
            self._arrived.clear()
