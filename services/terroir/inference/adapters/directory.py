"""What names stand for: asked of the registry each time, remembered for when it gives no answer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import structlog

from terroir.common.clock import Clock
from terroir.common.errors import DeadlineExceeded, NotFound, TerroirError, Unavailable
from terroir.inference.adapters.sources import AdapterSource, Recipe, VersionInfo
from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.inference.errors import RegistryUnreachable

MAX_REMEMBERED: Final = 10_000
"""Names of each kind; about 1 KB each."""
_PATIENCE_SECONDS: Final = 2.0
"""How long a registry that does not answer may hold up a request whose names are remembered."""
_RETRY_SECONDS: Final = 2.0
_log = structlog.get_logger()
Value = TypeVar("Value")


@dataclass(frozen=True)
class Known(Generic[Value]):
    """What a name stands for."""

    value: Value
    warning: str = ""
    """Set if the registry gave no answer and the value is a remembered one."""


@dataclass(frozen=True)
class _Remembered(Generic[Value]):
    value: Value
    at: float
    """Reading of the monotonic clock when the registry said so."""


class Directory:
    """Resolves names of versions and regions. One event loop owns it.

    A name that the registry denies is forgotten. What a restart of this process forgets, it can't serve without the
    registry.
    """

    def __init__(self, source: AdapterSource, clock: Clock, metrics: TierMetrics) -> None:
        self._source = source
        self._clock = clock
        self._metrics = metrics
        self._names: OrderedDict[str, _Remembered[str]] = OrderedDict()
        """Names of versions by the name asked for, longest unasked first."""
        self._versions: OrderedDict[str, VersionInfo] = OrderedDict()
        self._regions: OrderedDict[str, _Remembered[Recipe]] = OrderedDict()

    async def version(self, name: str) -> Known[VersionInfo]:
        """The version behind a name; raises NotFound and, for a name that is not remembered, RegistryUnreachable."""
        remembered = self._names.get(name)
        known = remembered is not None and remembered.value in self._versions
        try:
            version = await self._ask(name, self._source.version, patient=not known)
        except RegistryUnreachable as error:
            if remembered is None or not known:
                raise
            return Known(self._versions[remembered.value], self._warning(name, remembered.at, error))
        except NotFound:
            self._names.pop(name, None)
            raise
        self._learn(name, version)
        return Known(version)

    async def recipe(self, region: str) -> Known[Recipe]:
        """The recipe that applies to a region; raises as `version` does."""
        remembered = self._regions.get(region)
        try:
            recipe = await self._ask(region, self._source.recipe, patient=remembered is None)
        except RegistryUnreachable as error:
            if remembered is None:
                raise
            return Known(remembered.value, self._warning(region, remembered.at, error))
        except NotFound:
            self._regions.pop(region, None)
            raise
        _put(self._regions, region, _Remembered(recipe, self._clock.monotonic()))
        return Known(recipe)

    def names_of(self, adapter: str) -> list[str]:
        """Remembered names of an adapter that may stand for another version tomorrow: itself and its aliases."""
        return [name for name in self._names if name == adapter or name.startswith(f"{adapter}@")]

    def _learn(self, name: str, version: VersionInfo) -> None:
        now = self._clock.monotonic()
        _put(self._versions, version.name, version)
        # The version's own name too: a request may name it outright once the registry is gone.
        _put(self._names, version.name, _Remembered(version.name, now))
        _put(self._names, name, _Remembered(version.name, now))

    async def _ask(self, name: str, ask: Callable[[str], Awaitable[Value]], *, patient: bool) -> Value:
        try:
            if patient:
                return await ask(name)
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await ask(name)
        except (Unavailable, DeadlineExceeded, TimeoutError) as error:
            cause = error.reason if isinstance(error, TerroirError) else f"no answer in {_PATIENCE_SECONDS:g} s"
            raise RegistryUnreachable(
                f"the registry can't be reached ({cause}) and {name} was never looked up here before; try again when "
                "it is back (TERROIR_INFERENCE_REGISTRY_TARGET), or draw with names that were used before or without",
                metadata={"name": name, "cause": cause},
                retry_after_seconds=_RETRY_SECONDS,
            ) from error

    def _warning(self, name: str, at: float, error: RegistryUnreachable) -> str:
        seconds = self._clock.monotonic() - at
        self._metrics.remembered()
        _log.warning("name served from memory", name=name, seconds=round(seconds, 1), cause=error.metadata["cause"])
        return f"the registry can't be reached; {name} was taken as it was {seconds:.0f} s ago"


def _put(entries: OrderedDict[str, Value], key: str, value: Value) -> None:
    entries[key] = value
    entries.move_to_end(key)
    if len(entries) > MAX_REMEMBERED:
        entries.popitem(last=False)
