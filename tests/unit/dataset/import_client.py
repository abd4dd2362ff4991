"""A client of the import stream, without a network: it answers `wanted` and may misbehave as real clients do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from dataset_files import digest_of
from prometheus_client import CollectorRegistry

from terroir.common.clock import FixedClock
from terroir.dataset.album import Albums
from terroir.dataset.importing import Importer, ImportLimits
from terroir.dataset.metrics import DatasetMetrics
from terroir.dataset.offers import Chunk, Judged, Offer, OffersDone, ToClient, ToServer, Wanted
from terroir.dataset.thresholds import Thresholds
from terroir.store.blobs import Blobs
from terroir.store.interface import ObjectStore
from terroir.store.obstore_driver import MemoryStore

Shuffle = Callable[[list[Chunk]], Sequence[Chunk]]


@dataclass(frozen=True)
class File:
    """A file that the client has."""

    name: str
    data: bytes
    caption: str = ""

    @property
    def offer(self) -> Offer:
        return Offer(digest_of(self.data), self.name, len(self.data), self.caption)


LIMITS = ImportLimits(
    pixel_limit=1_000_000, max_pictures=100, window_bytes=64 * 1024 * 1024, max_streams=4, max_decoding=2
)


@dataclass
class Server:
    """An importer over a store; another one over the same store is a restart."""

    store: ObjectStore = field(default_factory=MemoryStore)
    limits: ImportLimits = LIMITS
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.blobs = Blobs(self.store)
        self.albums = Albums(self.store, self.blobs, FixedClock())
        self.importer = Importer(
            self.albums, self.blobs, Thresholds(minimum_side=64), self.limits, DatasetMetrics(self.registry)
        )


def in_order(chunks: list[Chunk]) -> Sequence[Chunk]:
    return chunks


async def import_files(
    server: Server,
    files: Iterable[File],
    *,
    chunk_bytes: int = 1000,
    shuffle: Shuffle = in_order,
    die_after: int | None = None,
) -> list[ToClient]:
    """Import as a good client does; with `die_after`, vanish after that many answers."""
    offered = list(files)
    contents = {digest_of(file.data): file.data for file in offered}
    outgoing: asyncio.Queue[ToServer] = asyncio.Queue()
    for file in offered:
        outgoing.put_nowait(file.offer)
    outgoing.put_nowait(OffersDone())
    answers: list[ToClient] = []
    async with aclosing(server.importer.run("ink", _drained(outgoing))) as stream:
        async for answer in stream:
            answers.append(answer)
            if die_after is not None and len(answers) >= die_after:
                break
            if isinstance(answer, Wanted):
                for chunk in shuffle(chunked(contents[answer.digest], chunk_bytes)):
                    outgoing.put_nowait(chunk)
    return answers


async def send(server: Server, *messages: ToServer, into: list[ToClient] | None = None) -> list[ToClient]:
    """Send exactly these messages, whatever the server answers, and half-close; answers are added to `into`."""
    answers: list[ToClient] = [] if into is None else into

    async def all_of_them() -> AsyncIterator[ToServer]:
        for message in messages:
            yield message

    async with aclosing(server.importer.run("ink", all_of_them())) as stream:
        async for answer in stream:
            answers += [answer]
    return answers


def chunked(data: bytes, size: int) -> list[Chunk]:
    digest = digest_of(data)
    return [Chunk(digest, offset, data[offset : offset + size]) for offset in range(0, len(data), size)]


def verdicts(answers: Iterable[ToClient]) -> list[Judged]:
    return [answer for answer in answers if isinstance(answer, Judged)]


def wanted(answers: Iterable[ToClient]) -> list[str]:
    return [answer.digest for answer in answers if isinstance(answer, Wanted)]


async def _drained(queue: asyncio.Queue[ToServer]) -> AsyncIterator[ToServer]:
    while True:
        yield await queue.get()
