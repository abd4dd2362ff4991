"""Adapters brought here before a request asks: a bounded list, newest first, a few at a time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final

import structlog

from terroir.common.errors import NotFound, TerroirError, Unavailable
from terroir.inference.adapters.device_tier import DeviceTier
from terroir.inference.adapters.directory import Directory
from terroir.inference.adapters.residency import Residency
from terroir.inference.adapters.sources import VersionInfo
from terroir.inference.adapters.styling import Base
from terroir.inference.adapters.tier_metrics import TierMetrics

MAX_WANTED: Final = 64
WORKERS: Final = 3
_NOT_YET_SECONDS: Final = (0.05, 0.2, 0.5)
"""Behind a load balancer another replica may answer, which sees a publish a little later."""
_log = structlog.get_logger()


class Cause(StrEnum):
    """Why an adapter is wanted."""

    PUBLISH = "publish"
    ALIAS = "alias"
    REGION = "region"


class Prefetcher:
    """Resolves and loads what is wanted into host memory, and onto the device where that evicts nothing.

    Hosting may evict what no request holds. Of a burst the newest are kept and the oldest dropped, so that it can't
    turn the whole cache over. One event loop owns it.
    """

    def __init__(
        self, directory: Directory, residency: Residency, device: DeviceTier, metrics: TierMetrics,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._directory = directory
        self._residency = residency
        self._device = device
        self._metrics = metrics
        self._pause = pause
        self._wanted: OrderedDict[str, Cause] = OrderedDict()
        self._unreached: dict[str, Cause] = {}
        self._arrived = asyncio.Semaphore(0)
        self._base: asyncio.Future[Base] | None = None

    def begin(self, base: Base) -> None:
        """Say for which base; until then what is wanted waits."""
        if not self._based.done():
            self._based.set_result(base)

    def want(self, name: str, cause: Cause) -> None:
        """Bring an adapter here soon: a version, an alias or `adapters/{id}`."""
        if name in self._wanted:
            self._wanted.move_to_end(name)
            return
        self._wanted[name] = cause
        if len(self._wanted) > MAX_WANTED:
            _, oldest_cause = self._wanted.popitem(last=False)
            self._metrics.prefetched(oldest_cause, "dropped")
        else:
            self._arrived.release()

    def retry(self) -> None:
        """The registry is back: want again what it could not give."""
        unreached, self._unreached = self._unreached, {}
        for name, cause in unreached.items():
            self.want(name, cause)

    async def run(self) -> None:
        """Work until cancelled."""
        await asyncio.gather(*(self._work() for _ in range(WORKERS)))

    @property
    def _based(self) -> asyncio.Future[Base]:
        if self._base is None:
            self._base = asyncio.get_running_loop().create_future()
        return self._base

    async def _work(self) -> None:
        while True:
            base = await asyncio.shield(self._based)
            await self._arrived.acquire()
            name, cause = self._wanted.popitem(last=True)
            try:
                result = await self._fetch(name, cause, base)
            except TerroirError as error:
                # Whoever asks for it gets this error; here nobody does.
                _log.warning("adapter not prefetched", name=name, cause=cause.value, reason=error.reason)
                result = "failed"
                if isinstance(error, Unavailable) and len(self._unreached) < MAX_WANTED:
                    self._unreached[name] = cause
            except Exception:
                # A defect that one file uncovers must not end prefetching for all others.
                _log.exception("prefetching failed", name=name)
                result = "failed"
            self._metrics.prefetched(cause, result)

    async def _fetch(self, name: str, cause: Cause, base: Base) -> str:
        version = await self._resolve(name, cause)
        if version.base_digest != base.digest:
            return "other_base"
        if version.withdrawn:
            return "withdrawn"
        result = "here" if version.file_digest in self._residency else "loaded"
        adapter = await self._residency.prefetch(version, base.key_table)
        self._device.prefetch(version.file_digest, adapter)
        return result

    async def _resolve(self, name: str, cause: Cause) -> VersionInfo:
        for seconds in _NOT_YET_SECONDS if cause is Cause.PUBLISH else ():
            try:
                return (await self._directory.version(name)).value
            except NotFound:
                await self._pause(seconds)
        return (await self._directory.version(name)).value
