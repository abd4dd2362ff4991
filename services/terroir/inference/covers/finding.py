"""Which covers answer: what is in memory or in the bucket, down the ladder of each region, within milliseconds."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from terroir.common.clock import Clock
from terroir.inference.covers.demand import Demand
from terroir.inference.covers.invalidations import RIGHT, Invalidations, Verdict
from terroir.inference.covers.ladder import Lack, Ladder, Rung, RungKind
from terroir.inference.covers.ladders import Ladders
from terroir.inference.covers.looks import Look
from terroir.inference.covers.memory import ByteCache
from terroir.inference.covers.metrics import CoverMetrics
from terroir.inference.covers.shelf import CoverSet, Shelf, Variant
from terroir.inference.covers.units import Shape, Unit, content_digest
from terroir.store.errors import StoreError

MAX_DATA_BYTES: Final = 4 * 1024 * 1024 - 256 * 1024
"""Of an answer, with room for what else it holds below gRPC's usual limit."""
STORE_SECONDS: Final = 0.1
"""How long a caller waits for the store in all; what comes later is known to the next one."""
_MISSING_SECONDS: Final = 2.0
"""What is not there may be drawn by another server at any time."""
_SET_SECONDS: Final = 600.0
_REREAD_SECONDS: Final = 1.0
"""Between two looks whether a stale set was drawn anew."""
_READERS: Final = 32
_OWNERS: Final = 200_000
_log = structlog.get_logger()


@dataclass(frozen=True)
class Query:
    """Contents asked for in one region."""

    contents: Sequence[str]
    """Keys."""
    region: str
    count: int


@dataclass(frozen=True)
class Wanted:
    """A unit that nobody could be given as it should be."""

    unit: Unit
    look: Look
    region: str
    """That it was asked for."""
    variants: int


class Fills(Protocol):
    """Who draws what is missing."""

    def want(self, wanted: Wanted) -> bool:
        """Have it drawn some time; whether it will be."""
        ...


@dataclass(slots=True)
class Found:
    """A cover, or what stands in for it."""

    content: str
    region: str
    variant: int = 0
    kind: RungKind = RungKind.DEFAULT
    source: str = ""
    stale_since: float | None = None
    lack: Lack = Lack.NONE
    filling: bool = False
    picture: Variant | None = None
    """None on the rung default."""
    data: bytes = b""


@dataclass(frozen=True)
class _Step:
    """A look that may answer."""

    rung: Rung
    look: Look
    digest: str
    """Of the look."""
    superseded: float | None


@dataclass(frozen=True)
class _Held:
    """What is known of a unit; None: it is not there."""

    found: CoverSet | None
    read_at: float


@dataclass(slots=True)
class _Ask:
    """A content in a region, on its way down."""

    content: str
    digest: str
    query: Query
    ladder: Ladder
    steps: Sequence[_Step]
    at: int = 0
    answer: CoverSet | None = None
    verdict: Verdict = RIGHT
    unit: Unit | None = None


class Finder:
    """Never draws, and waits for the store only as long as a caller can bear. One event loop owns it."""

    def __init__(
        self, ladders: Ladders, shelf: Shelf, invalidations: Invalidations, fills: Fills, demand: Demand,
        metrics: CoverMetrics, clock: Clock, *, memory_bytes: int, store_seconds: float = STORE_SECONDS,
    ) -> None:  # fmt: skip
        self._ladders = ladders
        self._shelf = shelf
        self._invalidations = invalidations
        self._fills = fills
        self._demand = demand
        self._metrics = metrics
        self._clock = clock
        self._store_seconds = store_seconds
        # Sets are small and asked for each time: files must not push them out.
        self._sets = ByteCache[Unit, _Held](memory_bytes // 4)
        self._files = ByteCache[str, bytes](memory_bytes - memory_bytes // 4)
        self._owners: OrderedDict[str, tuple[Unit, Look, str]] = OrderedDict()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="covers")
        metrics.watch(lambda: self._sets.used_bytes + self._files.used_bytes)

    def close(self) -> None:
        """Let no read begin any more."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def find(
        self, queries: Sequence[Query], shape: Shape, *, sticky_key: str = "", with_data: bool = False
    ) -> list[Found]:
        """Covers in the order of queries, contents and variants; one on the rung default where nothing is there."""
        regions = list(dict.fromkeys(query.region for query in queries))
        ladders = {region: known for region in regions if (known := self._ladders.known(region)) is not None}
        if cold := [region for region in regions if region not in ladders]:
            ladders |= zip(cold, await asyncio.gather(*map(self._ladders.of, cold)), strict=True)
        now = self._clock.now().timestamp()
        steps = {region: tuple(_steps(ladder, sticky_key, now)) for region, ladder in ladders.items()}
        asks = [
            _Ask(content, content_digest(content), query, ladders[query.region], steps[query.region])
            for query in queries for content in query.contents
        ]  # fmt: skip
        until = self._clock.monotonic() + self._store_seconds
        reached = await self._descend(asks, shape, until)
        files: dict[str, bytes] = {}
        if with_data:
            files = await self._files_of(asks, shape, until)
        found = [each for ask in asks for each in self._answers(ask, shape, files, reached=reached)]
        self._metrics.answered(Counter(each.kind for each in found if each.variant == 0))
        self._metrics.stale([now - each.stale_since for each in found if each.stale_since is not None])
        return found

    async def read(self, digest: str) -> bytes | None:
        """The file of a cover; None where it is gone, and then it is drawn again. Raises StoreUnavailable."""
        now = self._clock.monotonic()
        data = self._files.get(digest, now)
        if data is None:
            data = await asyncio.get_running_loop().run_in_executor(self._readers, self._shelf.picture, digest)
            if data is None:
                await self._mend(digest)
                return None
            self._files.put(digest, data, len(data))
        return data

    def unanswered(self, contents: int) -> None:
        """Count contents that got the callers' default before anything could be looked up."""
        self._metrics.answered({RungKind.DEFAULT: contents})

    def learn(self, unit: Unit, found: CoverSet) -> None:
        """A set was drawn here."""
        self._hold(unit, found)

    def is_wrong(self, unit: Unit, found: CoverSet) -> bool:
        """Whether a rule says that a set is not right."""
        return self._invalidations.verdict(unit, found).stale_since is not None

    async def present(self, unit: Unit) -> CoverSet | None:
        """The set of a unit as the store has it, unless a rule says that it is not right. Raises StoreUnavailable."""
        found = await asyncio.get_running_loop().run_in_executor(self._readers, self._shelf.find, unit)
        self._hold(unit, found)
        return None if found is None or self.is_wrong(unit, found) else found

    async def _descend(self, asks: Sequence[_Ask], shape: Shape, until: float) -> bool:
        """Find each ask's answer; whether the store told in time all that was asked of it."""
        waiting, reached = list(asks), True
        while waiting:
            unknown: dict[Unit, None] = {}
            still = []
            now = self._clock.monotonic()
            for ask in waiting:
                unit = self._walk(ask, shape, now, blind=not reached)
                if unit is not None:
                    unknown[unit] = None
                    still.append(ask)
            waiting = still
            if waiting:
                reached = await self._load(list(unknown), until) and reached
        return reached

    def _walk(self, ask: _Ask, shape: Shape, now: float, *, blind: bool) -> Unit | None:
        """Go down as far as is known; the unit that must be read to go on. `blind` takes what is unknown as missing."""
        while ask.at < len(ask.steps):
            unit = Unit(ask.digest, ask.steps[ask.at].digest, shape)
            held = self._sets.get(unit, now)
            if held is None:
                if not blind:
                    return unit
            elif held.found is not None:
                verdict = self._invalidations.verdict(unit, held.found)
                if verdict.stale_since is not None and now - held.read_at > _REREAD_SECONDS and not blind:
                    return unit
                if not verdict.withdrawn:
                    ask.answer, ask.verdict, ask.unit = held.found, verdict, unit
                    return None
            ask.at += 1
        return None

    async def _load(self, units: Sequence[Unit], until: float) -> bool:
        """Read sets into memory, all at once; whether all came in time."""
        loop = asyncio.get_running_loop()
        reads = [loop.run_in_executor(self._readers, self._shelf.find, unit) for unit in units]
        done, late = await asyncio.wait(reads, timeout=max(0.0, until - self._clock.monotonic()))
        for unit, read in zip(units, reads, strict=True):
            if read in late:
                read.cancel()
                read.add_done_callback(_ignored)
            elif (error := read.exception()) is None:
                self._hold(unit, read.result())
            elif not isinstance(error, StoreError):
                raise error
        failed = any(read.exception() is not None for read in done)
        if late or failed:
            self._metrics.store_missed()
        return not late and not failed

    async def _files_of(self, asks: Sequence[_Ask], shape: Shape, until: float) -> dict[str, bytes]:
        """Files by digest, as far as they fit an answer. Where one is gone, its ask goes on down."""
        files: dict[str, bytes] = {}
        room = MAX_DATA_BYTES
        waiting = list(asks)
        while waiting:
            wanted: dict[str, int] = {}
            for ask in waiting:
                for picture in ask.answer.variants[: ask.query.count] if ask.answer else ():
                    if picture.digest not in files and picture.digest not in wanted and picture.size_bytes <= room:
                        wanted[picture.digest] = picture.size_bytes
                        room -= picture.size_bytes
            read, gone = await self._read_files(list(wanted), until)
            files |= read
            waiting = [ask for ask in waiting if ask.answer and {one.digest for one in ask.answer.variants} & gone]
            for ask in waiting:
                assert ask.unit is not None
                await self._remove(ask.unit)
                ask.answer = None
            await self._descend(waiting, shape, until)
        return files

    async def _read_files(self, digests: Sequence[str], until: float) -> tuple[dict[str, bytes], set[str]]:
        """Those that came in time, and those that are gone."""
        now = self._clock.monotonic()
        files = {digest: data for digest in digests if (data := self._files.get(digest, now)) is not None}
        loop, cold = asyncio.get_running_loop(), [digest for digest in digests if digest not in files]
        reads = [loop.run_in_executor(self._readers, self._shelf.picture, digest) for digest in cold]
        gone = set()
        if reads:
            _, late = await asyncio.wait(reads, timeout=max(0.0, until - self._clock.monotonic()))
            for digest, read in zip(cold, reads, strict=True):
                if read in late:
                    read.cancel()
                    read.add_done_callback(_ignored)
                elif isinstance(read.exception(), StoreError):
                    self._metrics.store_missed()
                elif (data := read.result()) is None:
                    gone.add(digest)
                else:
                    files[digest] = data
                    self._files.put(digest, data, len(data))
        return files, gone

    def _answers(self, ask: _Ask, shape: Shape, files: dict[str, bytes], *, reached: bool) -> Iterator[Found]:
        own = ask.steps[0] if ask.ladder.own is not None else None
        found, step = ask.answer, ask.steps[ask.at] if ask.answer is not None else None
        stale_since = ask.verdict.stale_since
        if step is not None and step.superseded is not None:
            stale_since = step.superseded if stale_since is None else min(stale_since, step.superseded)
        lack = Lack.NONE
        if own is None or step is None or step.rung is not own.rung:
            lack = ask.ladder.lack or (Lack.NOT_DRAWN if reached else Lack.STORE_UNREACHABLE)
        filling = False
        if own is not None and reached:
            right = found is not None and step is own and stale_since is None
            if found is None or not right or found.asked < ask.query.count:
                unit = Unit(ask.digest, own.look.digest, shape)
                filling = self._fills.want(Wanted(unit, own.look, ask.query.region, ask.query.count))
        self._demand.count(ask.query.region, ask.digest, shape, ask.query.count)
        kind = step.rung.kind if step is not None else RungKind.DEFAULT
        if found is None or step is None:
            yield Found(ask.content, ask.query.region, lack=lack, filling=filling)
            return
        for number, picture in enumerate(found.variants[: ask.query.count]):
            self._own(picture.digest, (ask.unit, step.look, ask.query.region))
            yield Found(
                ask.content, ask.query.region, number, kind, step.rung.source, stale_since, lack, filling, picture,
                files.get(picture.digest, b""),
            )  # fmt: skip

    def _own(self, digest: str, owner: tuple[Unit | None, Look, str]) -> None:
        """Remember whose file it is, for when it turns out to be gone."""
        unit, look, region = owner
        if unit is not None and digest not in self._owners:
            self._owners[digest] = (unit, look, region)
            if len(self._owners) > _OWNERS:
                self._owners.popitem(last=False)

    async def _mend(self, digest: str) -> None:
        owner = self._owners.pop(digest, None)
        if owner is not None:
            unit, look, region = owner
            held = self._sets.get(unit, self._clock.monotonic())
            await self._remove(unit)
            if held is not None and held.found is not None:
                self._fills.want(Wanted(unit, look, region, held.found.asked))

    async def _remove(self, unit: Unit) -> None:
        """A set whose pictures are gone is none."""
        self._metrics.hole()
        self._hold(unit, None)
        try:
            await asyncio.get_running_loop().run_in_executor(self._readers, self._shelf.remove, unit)
        except StoreError as error:
            _log.warning("cover set not removed", key=unit.key, reason=error.reason)

    def _hold(self, unit: Unit, found: CoverSet | None) -> None:
        now = self._clock.monotonic()
        seconds = _MISSING_SECONDS if found is None else _SET_SECONDS
        size = 0 if found is None else 256 * len(found.variants)
        self._sets.put(unit, _Held(found, now), size, now + seconds)


def _steps(ladder: Ladder, sticky_key: str, now: float) -> Iterator[_Step]:
    """Looks in the order in which they answer, each once."""
    seen = set()
    for rung in ladder.rungs:
        current = rung.dress.look_for(sticky_key, now)
        for look, since in [(current, None), *((each.look, each.since) for each in rung.previous)]:
            if look.digest not in seen:
                seen.add(look.digest)
                yield _Step(rung, look, look.digest, since)


def _ignored(read: asyncio.Future[Any]) -> None:
    """Read what became of a call that nobody waits for."""
    if not read.cancelled():
        read.exception()
