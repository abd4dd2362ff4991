"""Keeps here what the most popular regions resolve to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog

from terroir.common.errors import TerroirError
from terroir.inference.adapters.directory import Directory
from terroir.inference.adapters.popularity import Popularity
from terroir.inference.adapters.prefetching import MAX_WANTED, Cause, Prefetcher

_GATHER_SECONDS = 0.1
"""Changes come in bursts; one look serves them all."""
_log = structlog.get_logger()


class Warmer:
    """Looks at the popular regions at start, at an interval, and when something changed. One event loop owns it."""

    def __init__(
        self, directory: Directory, popularity: Popularity[str], prefetcher: Prefetcher, *,
        always: Sequence[str], most: int, budget_bytes: int, interval_seconds: float,
    ) -> None:  # fmt: skip
        """`always` are regions that count as popular without requests; `budget_bytes` bounds the files of all."""
        self._directory = directory
        self._popularity = popularity
        self._prefetcher = prefetcher
        self._always = tuple(always)
        self._most = most
        self._budget_bytes = budget_bytes
        self._interval_seconds = interval_seconds
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look soon: a region, a recipe or an alias changed, or the registry came back."""
        self._woken.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self.warm()
            with suppress(TimeoutError):
                # Not wait_for: in Python 3.11 it swallows a cancel that comes together with what it waits for.
                async with asyncio.timeout(self._interval_seconds):
                    await self._woken.wait()
                await asyncio.sleep(_GATHER_SECONDS)
            self._woken.clear()

    async def warm(self) -> None:
        """Want what the popular regions resolve to now, the most popular first, within the budget."""
        names: dict[str, None] = {}
        room = self._budget_bytes
        for region in dict.fromkeys((*self._popularity.most(self._most), *self._always)):
            try:
                for adapter, _ in (await self._directory.recipe(region)).value.adapters:
                    version = (await self._directory.version(adapter)).value
                    if version.name not in names and version.size_bytes <= room:
                        names[version.name] = None
                        room -= version.size_bytes
            except TerroirError as error:
                _log.warning("region not prefetched", region=region, reason=error.reason)
        for name in reversed(list(names)[:MAX_WANTED]):  # what is wanted last is fetched first
            self._prefetcher.want(name, Cause.REGION)
