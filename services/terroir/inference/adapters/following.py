"""Follows the registry's watch: across broken connections, and without missing a change."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, Protocol

import structlog

from terroir.common.errors import TerroirError
from terroir.inference.adapters.sources import Change, ChangeSource
from terroir.inference.adapters.tier_metrics import TierMetrics

SILENCE_SECONDS: Final = 45.0
"""The registry says every 15 s that it is still there."""
_FIRST_DELAY_SECONDS: Final = 0.1
_MAX_DELAY_SECONDS: Final = 5.0
_LOST_PLACE: Final = ("WATCH_TOKEN_INVALID", "WATCH_TOKEN_AHEAD")
_log = structlog.get_logger()


class Reactions(Protocol):
    """What changes of the registry lead to here."""

    async def react(self, change: Change) -> None:
        """Do what a change asks for; raises a TerroirError if it must be heard again."""
        ...

    async def begun(self, *, missed: bool) -> None:
        """The watch has begun or goes on; `missed` if changes since the last one can't be told any more."""
        ...


class Follower:
    """One watch, kept open. One event loop owns it."""

    def __init__(
        self, source: ChangeSource, reactions: Reactions, metrics: TierMetrics,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep, random_share: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        self._source = source
        self._reactions = reactions
        self._metrics = metrics
        self._pause = pause
        self._random_share = random_share
        self._resume_token = ""
        self._missed = False
        self._connected = False
        self._failures = 0
        self._reported = ""

    @property
    def connected(self) -> bool:
        """Whether changes are heard now."""
        return self._connected

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._follow()
                reason = "ENDED"
            except TerroirError as error:
                reason = error.reason
                if reason in _LOST_PLACE:
                    self._resume_token, self._missed = "", True
            except TimeoutError:
                reason = "SILENT"
            finally:
                self._set_connected(False)
            delay = min(_FIRST_DELAY_SECONDS * 2**self._failures, _MAX_DELAY_SECONDS)
            self._failures = min(self._failures + 1, 16)
            if reason != self._reported:  # not every 5 s while the registry is down
                self._reported = reason
                _log.warning("registry watch ended", reason=reason)
            # Half of it at random: all servers lose a registry at the same moment.
            await self._pause(delay * (0.5 + 0.5 * self._random_share()))

    async def _follow(self) -> None:
        async with aclosing(self._source.changes(self._resume_token)) as changes:
            while (change := await _next(changes)) is not None:
                if not self._connected:
                    await self._reactions.begun(missed=self._missed)
                    self._missed = False
                    self._reported = ""
                    self._set_connected(True)
                    _log.info("registry watch runs")
                if change.kind is not None:
                    self._metrics.heard(change.kind)
                    await self._reactions.react(change)
                # Only now: a change whose reaction failed is told again after the reconnect.
                self._resume_token = change.resume_token
                self._failures = 0

    def _set_connected(self, connected: bool) -> None:
        self._connected = connected
        self._metrics.watching(connected)


async def _next(changes: AsyncGenerator[Change]) -> Change | None:
    """The next change, None at the end; raises TimeoutError when nothing comes.

    Not wait_for: in Python 3.11 it swallows a cancel that comes together with what it waits for (CPython 86296).
    """
    async with asyncio.timeout(SILENCE_SECONDS):
        return await anext(changes, None)
