"""The ladder of each region that is asked for, kept as the registry has it now."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

import structlog

from terroir.common.clock import Clock
from terroir.common.errors import FailedPrecondition, NotFound, TerroirError, Unavailable
from terroir.inference.adapters.directory import Known
from terroir.inference.adapters.sources import CanaryInfo, Change, ChangeKind, Recipe, VersionInfo
from terroir.inference.adapters.styling import Base
from terroir.inference.covers.ladder import Dress, Lack, Ladder, Rung, RungKind, Trial
from terroir.inference.covers.looks import Look, Worn
from terroir.inference.covers.units import content_digest
from terroir.inference.errors import AdapterBaseMismatch, AdapterWithdrawn, ModelLoadFailed, ModelLoading
from terroir.store.errors import StoreError
from terroir.store.interface import ObjectStore

MAX_REGIONS: Final = 10_000
"""Ladders in memory; each some KB."""
PATIENCE_SECONDS: Final = 0.05
"""How long a caller waits for a region that was never looked up here; it is looked up all the same."""
_AGE_SECONDS: Final = 60.0
"""Seasons begin and canaries end without anybody saying so: each ladder is looked at again after so long."""
_AT_ONCE: Final = 8
_MAX_WITHDRAWN: Final = 10_000
_log = structlog.get_logger()


class Names(Protocol):
    """What names stand for; see `Directory`."""

    async def version(self, name: str) -> Known[VersionInfo]:
        """The version behind a name."""
        ...

    async def recipe(self, region: str) -> Known[Recipe]:
        """The recipe of a region."""
        ...


class Canaries(Protocol):
    """See `RegistryGateway`."""

    async def canary(self, name: str) -> CanaryInfo | None:
        """The canary of an alias."""
        ...


class Ladders:
    """Answers from memory; one event loop owns it.

    What a change of the registry touches is looked up again at once, the regions asked for last first, and the old
    ladder answers meanwhile. The store remembers ladders, so that a new process knows what its regions wore before.
    """

    def __init__(
        self, names: Names, canaries: Canaries, base: Callable[[], Base], store: ObjectStore, clock: Clock,
        changed: Callable[[Ladder], None] = lambda _ladder: None, *, patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:  # fmt: skip
        """`base` raises ModelLoading; `changed` hears of each ladder whose own style is another than before."""
        self._names = names
        self._canaries = canaries
        self._base = base
        self._store = store
        self._clock = clock
        self._changed = changed
        self._patience_seconds = patience_seconds
        self._known: OrderedDict[str, Ladder] = OrderedDict()
        """By region, longest unasked first."""
        self._looked: dict[str, float] = {}
        self._building: dict[str, asyncio.Task[Ladder]] = {}
        self._recalled: dict[str, Ladder] = {}
        """What regions wore before, while they are looked up: a registry that hangs holds nobody up."""
        self._due: dict[str, None] = {}
        self._withdrawn: dict[str, None] = {}
        self._woken = asyncio.Event()

    async def of(self, region: str) -> Ladder:
        """The ladder of `regions/{code}`, or of nothing for the base's own look; never waits long."""
        if (known := self.known(region)) is not None:
            return known
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await asyncio.shield(self._build(region))
        except TimeoutError:
            return self._recalled.get(region) or self._bare(region, Lack.REGISTRY_UNREACHABLE)

    def known(self, region: str) -> Ladder | None:
        """The same if it is in memory."""
        known = self._known.get(region)
        if known is not None:
            self._known.move_to_end(region)
        return known

    def react(self, change: Change) -> None:
        """Look again at what a change of the registry may touch."""
        if change.kind in (ChangeKind.REGION, ChangeKind.RECIPE):
            self._again(self._known)
        elif change.kind is not None:
            adapter = change.name.partition("/versions/")[0]
            self._again(region for region, ladder in self._known.items() if adapter in ladder.names)

    def withdrawn(self, file_digest: str) -> None:
        """An adapter must not be shown any more: no previous look wears it from now on."""
        self._withdrawn[file_digest] = None
        while len(self._withdrawn) > _MAX_WITHDRAWN:
            del self._withdrawn[next(iter(self._withdrawn))]
        gone = frozenset(self._withdrawn)
        for region, ladder in self._known.items():
            self._known[region] = _shown(ladder.without(gone), gone)

    def missed(self) -> None:
        """Changes were not heard: look at everything again."""
        self._again(self._known)

    async def run(self) -> None:
        """Look again at what is due, until cancelled."""
        while True:
            await self.look_again()
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGE_SECONDS / 4):
                    await self._woken.wait()
            self._woken.clear()

    async def look_again(self) -> None:
        """Look up what changed or is old, the regions asked for last first."""
        now = self._clock.monotonic()
        old = [region for region, at in self._looked.items() if now - at > _AGE_SECONDS]
        due = list(dict.fromkeys([*reversed(self._due), *old]))
        self._due.clear()
        for at in range(0, len(due), _AT_ONCE):
            await asyncio.gather(*(self._build(region) for region in due[at : at + _AT_ONCE]))

    def _again(self, regions: Iterable[str]) -> None:
        for region in list(regions):
            self._due.pop(region, None)
            self._due[region] = None
        self._woken.set()

    def _build(self, region: str) -> asyncio.Task[Ladder]:
        """One look-up a region, however many ask; it never fails."""
        task = self._building.get(region)
        if task is None:
            task = self._building[region] = asyncio.create_task(self._look_up(region), name=f"ladder of {region}")
            task.add_done_callback(lambda _task: self._building.pop(region, None))
        return task

    async def _look_up(self, region: str) -> Ladder:
        try:
            return await self._look_up_after(region, self._known.get(region) or await self._remembered(region))
        finally:
            self._recalled.pop(region, None)

    async def _look_up_after(self, region: str, before: Ladder | None) -> Ladder:
        try:
            found = await self._found(region)
        except NotFound:
            found = self._bare(region, Lack.REGION_UNKNOWN)
        except (ModelLoading, ModelLoadFailed):
            return before or Ladder(region, (), Lack.MODEL_LOADING)
        except TerroirError as error:
            lack = Lack.REGISTRY_UNREACHABLE
            _log.warning("ladder not looked up", region=region, reason=error.reason)
            if before is None:
                return self._bare(region, lack)
            found = before
        gone = frozenset(self._withdrawn)
        ladder = (found if before is None else found.after(before, self._clock.now().timestamp())).without(gone)
        self._keep(region, ladder)
        if ladder != before:
            await asyncio.to_thread(self._remember, ladder)
            if before is not None and _own(before) != _own(ladder):
                self._changed(ladder)
        return ladder

    def _keep(self, region: str, ladder: Ladder) -> None:
        self._known[region] = ladder
        self._looked[region] = self._clock.monotonic()
        while len(self._known) > MAX_REGIONS:
            oldest, _ = self._known.popitem(last=False)
            del self._looked[oldest]

    async def _found(self, region: str) -> Ladder:
        base = self._base()
        rungs: list[Rung] = []
        lack, at, names = Lack.NONE, region, set[str]()
        while at:
            try:
                recipe = (await self._names.recipe(at)).value
            except NotFound:
                if at == region:
                    raise
                break  # nobody put what it lies in, by the spelling of its code alone
            if not recipe.source:
                break
            names |= {name.partition("@")[0].partition("/versions/")[0] for name, _ in recipe.adapters}
            try:
                dress = await self._dress(recipe, base)
                rungs.append(Rung(RungKind.PARENT if rungs or lack else RungKind.REGION, recipe.source, dress))
            except (AdapterWithdrawn, AdapterBaseMismatch, NotFound) as error:
                # It can't be worn, so it can't be drawn: the next one answers.
                _log.warning("rung left out", region=recipe.source, reason=error.reason)
                lack = Lack.NOT_DRAWN
            at = recipe.further[0] if recipe.further else ""
        bare = Rung(RungKind.BASE if region else RungKind.REGION, "", Dress(Look(base.digest)))
        return Ladder(region, (*rungs, bare), lack, tuple(sorted(names)))

    async def _dress(self, recipe: Recipe, base: Base) -> Dress:
        worn, trials = [], []
        for place, (name, weight) in enumerate(recipe.adapters):
            worn.append(await self._worn(name, weight, base))
            canary = await self._canary(name)
            if canary is not None:
                try:
                    trial = await self._worn(canary.version, weight, base)
                except FailedPrecondition:
                    continue  # a canary that can't be worn is tried on nobody
                alias, number = name.removeprefix("adapters/"), int(canary.version.rpartition("/")[2])
                trials.append(Trial(alias, number, canary.percent, canary.expires_at, place, trial))
        look = Look(base.digest, tuple(worn), recipe.prompt_prefix, recipe.negative_prompt)
        return Dress(look, tuple(trials))

    async def _canary(self, name: str) -> CanaryInfo | None:
        try:
            return await self._canaries.canary(name)
        except Unavailable:
            return None  # remembered names have their own versions only

    async def _worn(self, name: str, weight: float, base: Base) -> Worn:
        version = (await self._names.version(name)).value
        if version.withdrawn:
            self._withdrawn[version.file_digest] = None
            raise AdapterWithdrawn(f"{version.name} was withdrawn: {version.withdrawn}")
        self._withdrawn.pop(version.file_digest, None)  # reinstated
        if version.base_digest != base.digest:
            raise AdapterBaseMismatch(f"{version.name} was trained on another base than {base.name}")
        return Worn(version.name, version.file_digest, weight)

    def _bare(self, region: str, lack: Lack) -> Ladder:
        try:
            base = self._base()
        except TerroirError:
            return Ladder(region, (), Lack.MODEL_LOADING)
        return Ladder(region, (Rung(RungKind.BASE, "", Dress(Look(base.digest))),), lack)

    async def _remembered(self, region: str) -> Ladder | None:
        try:
            ladder = await asyncio.to_thread(self._read, region)
        except StoreError:
            return None
        if ladder is None or region != ladder.region:
            return None
        self._recalled[region] = ladder
        await self._ensure_shown(ladder)
        return ladder

    async def _ensure_shown(self, ladder: Ladder) -> None:
        """Hear of what was withdrawn while nobody listened."""
        looks = [each.look for rung in ladder.rungs for each in rung.previous]
        looks += [look for rung in ladder.rungs for look in rung.dress.looks()]
        for name in {worn.version for look in looks for worn in look.adapters}:
            try:
                version = (await self._names.version(name)).value
            except TerroirError:
                continue
            if version.withdrawn:
                self._withdrawn[version.file_digest] = None

    def _read(self, region: str) -> Ladder | None:
        try:
            return Ladder.from_body(json.loads(self._store.get(_key(region))))
        except (StoreError, ValueError, TypeError, KeyError):
            return None

    def _remember(self, ladder: Ladder) -> None:
        try:
            self._store.put(_key(ladder.region), json.dumps(ladder.to_body(), ensure_ascii=False).encode())
        except StoreError as error:
            _log.warning("ladder not remembered", region=ladder.region, reason=error.reason)


def _own(ladder: Ladder) -> set[str]:
    """Digests of the looks of the best rung."""
    return {look.digest for look in ladder.rungs[0].dress.looks()} if ladder.rungs else set()


def _shown(ladder: Ladder, gone: frozenset[str]) -> Ladder:
    """Without rungs that wear what must not be shown, until they are looked up again."""

    def hidden(rung: Rung) -> bool:
        return any(worn.file_digest in gone for look in rung.dress.looks() for worn in look.adapters)

    absent = tuple(rung for rung in ladder.rungs if hidden(rung))
    if not absent:
        return ladder
    lack = Lack.NOT_DRAWN if hidden(ladder.rungs[0]) else ladder.lack
    kept = tuple(rung for rung in ladder.rungs if not hidden(rung))
    return replace(ladder, rungs=kept, lack=lack, absent=(*ladder.absent, *absent))


def _key(region: str) -> str:
    return f"covers/ladders/{content_digest(region)}"
