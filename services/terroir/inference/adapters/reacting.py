"""What a change in the registry leads to here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from terroir.common.errors import TerroirError, Unavailable
from terroir.inference.adapters.device_tier import DeviceTier
from terroir.inference.adapters.directory import Directory
from terroir.inference.adapters.prefetching import Cause, Prefetcher
from terroir.inference.adapters.residency import Residency
from terroir.inference.adapters.sources import Change, ChangeKind, VersionInfo
from terroir.inference.adapters.warming import Warmer

_log = structlog.get_logger()


class ChangeListener(Protocol):
    """Who else acts on changes; what they do must not take long."""

    def heard(self, change: Change) -> None:
        """A change of the registry."""
        ...

    def withdrawn(self, file_digest: str) -> None:
        """An adapter must not be shown any more."""
        ...

    def missed(self) -> None:
        """Changes since the last one can't be told any more."""
        ...


@dataclass(frozen=True)
class RegistryReactions:
    """Implements Reactions: fetch what was published, forget what was withdrawn, look again at what moved."""

    directory: Directory
    residency: Residency
    device: DeviceTier
    prefetcher: Prefetcher
    warmer: Warmer
    listeners: Sequence[ChangeListener] = ()

    async def react(self, change: Change) -> None:
        """Raises Unavailable if a withdrawal can't be looked up now, so that it is told again."""
        if change.kind is ChangeKind.PUBLISHED:
            for name in self.directory.names_of(change.name.partition("/versions/")[0]):
                self.prefetcher.want(name, Cause.PUBLISH)
            self.prefetcher.want(change.name, Cause.PUBLISH)
        elif change.kind is ChangeKind.ALIASES:
            for name in self.directory.names_of(change.name):
                self.prefetcher.want(name, Cause.ALIAS)
            self.warmer.wake()
        elif change.kind is ChangeKind.DEPRECATED:
            await self._check(change.name)
        elif change.kind in (ChangeKind.REGION, ChangeKind.RECIPE):
            self.warmer.wake()
        for listener in self.listeners:
            listener.heard(change)

    async def begun(self, *, missed: bool) -> None:
        """Raises as `react` does."""
        if missed:
            for resident in list(self.residency.resident()):
                await self._check(resident.version)
            for listener in self.listeners:
                listener.missed()
        self.prefetcher.retry()
        self.warmer.wake()

    async def _check(self, name: str) -> None:
        try:
            known = await self.directory.version(name)
        except Unavailable:
            raise
        except TerroirError as error:
            # Not found, or an answer that would be the same each time: waiting for another would stop the watch.
            _log.warning("withdrawal not looked up", version=name, reason=error.reason)
            return
        if known.warning:
            raise Unavailable(known.warning)
        if known.value.withdrawn:
            self._forget(known.value)

    def _forget(self, version: VersionInfo) -> None:
        self.device.forget(version.file_digest)
        self.residency.forget(version.file_digest)
        for listener in self.listeners:
            listener.withdrawn(version.file_digest)
        _log.info("withdrawn adapter forgotten", version=version.name, reason=version.withdrawn)
