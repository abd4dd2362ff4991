"""Import pictures over one stream: offers come in, missing contents are asked for, judged and recorded.

The run of a stream has three tasks joined by queues: *read* takes messages and asks for contents, *examine* verifies,
stores and measures them off the event loop, *record* writes finished pictures to the album, all that are ready in one
document, and only then gives their verdicts. A content is asked for only while less than `window_bytes` are on the way
or waiting, which bounds the memory of a stream however many pictures are offered.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from terroir.common.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from terroir.dataset.album import Album, Albums, Change
from terroir.dataset.assembly import PictureParts
from terroir.dataset.judging import judge_some
from terroir.dataset.measure import measure
from terroir.dataset.metrics import DatasetMetrics
from terroir.dataset.model import CaptionEdit, CaptionKind, Gate, Picture
from terroir.dataset.offers import Chunk, Judged, Offer, OffersDone, ToClient, ToServer, Wanted, ensure_offer
from terroir.dataset.picture import UnreadableError
from terroir.dataset.thresholds import Thresholds
from terroir.store.blobs import Blobs

_RECORD_AT_ONCE = 64
_BUSY_RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class ImportLimits:
    """What one import may take."""

    pixel_limit: int
    """Pixels of one picture."""
    max_pictures: int
    """Pictures of one dataset."""
    window_bytes: int
    """Bytes that one stream may have on the way or waiting to be examined."""
    max_streams: int
    """Imports at once."""
    max_decoding: int
    """Pictures decoded at once, over all streams."""


class Importer:
    """Runs the imports of one server."""

    def __init__(
        self, albums: Albums, blobs: Blobs, thresholds: Thresholds, limits: ImportLimits, metrics: DatasetMetrics
    ) -> None:
        self.albums = albums
        self.blobs = blobs
        self.thresholds = thresholds
        self.limits = limits
        self.metrics = metrics
        self.decoding = asyncio.Semaphore(limits.max_decoding)
        self._streams = 0
        metrics.watch_imports(lambda: self._streams, limits.max_streams)

    async def run(self, dataset_id: str, messages: AsyncIterator[ToServer]) -> AsyncGenerator[ToClient, None]:
        """Answer the messages of one stream until every offer has its verdict. Raises `TerroirError`."""
        if self._streams >= self.limits.max_streams:
            raise ResourceExhausted(
                f"{self._streams} imports are running, the limit is {self.limits.max_streams}; try again in a moment "
                "or raise TERROIR_DATASET_MAX_IMPORT_STREAMS",
                reason="IMPORTS_BUSY",
                retry_after_seconds=_BUSY_RETRY_SECONDS,
            )
        self._streams += 1
        try:
            run = _Run(self, dataset_id, await asyncio.to_thread(self.albums.load, dataset_id))
            work = asyncio.create_task(run.work(messages))
            try:
                while (answer := await run.answers.get()) is not None:
                    yield answer
                await work
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        finally:
            self._streams -= 1

    def examine(self, offer: Offer, data: bytes | None) -> Picture:
        """Verify, store and measure a content (None: it is stored already). Blocks; for a thread."""
        if data is None:
            data = self.blobs.get(offer.digest)
        elif (actual := hashlib.sha256(data).hexdigest()) != offer.digest:
            raise InvalidArgument(
                f"the bytes of {offer.file_name!r} have the SHA-256 {actual}, offered was {offer.digest}; "
                "the file changed or the transfer broke: import it again",
                reason="DIGEST_MISMATCH",
                metadata={"digest": offer.digest, "actual": actual},
            )
        else:
            self.blobs.put(data)
        try:
            measured = measure(data, self.limits.pixel_limit)
        except UnreadableError as error:
            return Picture(offer.digest, offer.file_name, len(data), unreadable=error.fact)
        return Picture(offer.digest, offer.file_name, len(data), measured=measured)


@dataclass(frozen=True)
class _Arrived:
    """An offer whose content is examined, or whose picture the dataset holds already."""

    offer: Offer
    picture: Picture | None


class _Run:
    """State of one stream."""

    def __init__(self, importer: Importer, dataset_id: str, album: Album) -> None:
        self.answers: asyncio.Queue[ToClient | None] = asyncio.Queue()
        self._importer = importer
        self._dataset_id = dataset_id
        self._present = {
            digest for digest, picture in album.pictures.items() if not _readable_by_now(picture, importer.limits)
        }
        self._recorded_before = frozenset(album.pictures)
        self._room = importer.limits.max_pictures - len(album.pictures)
        self._open: dict[str, Offer] = {}
        self._again: dict[str, list[Offer]] = {}
        self._waiting: deque[Offer] = deque()
        self._parts: dict[str, PictureParts] = {}
        self._window = 0
        self._to_examine: asyncio.Queue[tuple[Offer, bytes | None]] = asyncio.Queue()
        self._to_record: asyncio.Queue[_Arrived] = asyncio.Queue()
        self._closed = False
        self._lost: list[Offer] = []
        self._finished = asyncio.Event()

    async def work(self, messages: AsyncIterator[ToServer]) -> None:
        """Do everything; `answers` ends with None, whatever happens."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(part) for part in (self._read(messages), self._examine(), self._record())]
                await self._finished.wait()
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            self.answers.put_nowait(None)
        if self._lost:
            names = ", ".join(repr(offer.file_name) for offer in self._lost[:3])
            raise FailedPrecondition(
                f"the stream ended with {len(self._lost)} wanted pictures not sent ({names}); import again, what "
                "arrived is kept",
                reason="IMPORT_INCOMPLETE",
                metadata={"missing": str(len(self._lost))},
            )

    async def _read(self, messages: AsyncIterator[ToServer]) -> None:
        async for message in messages:
            match message:
                case Offer():
                    await self._offered(ensure_offer(message))
                case Chunk():
                    self._received(message)
                case OffersDone():
                    self._close()
        self._lost = [*self._waiting, *(self._open[digest] for digest in self._parts)]
        for offer in self._lost:
            del self._open[offer.digest]
        self._waiting.clear()
        self._parts.clear()
        self._close()

    def _close(self) -> None:
        self._closed = True
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._closed and not self._open:
            self._finished.set()

    async def _offered(self, offer: Offer) -> None:
        if self._closed:
            raise InvalidArgument(
                f"{offer.file_name!r} was offered after offers_done; open another import", reason="OFFER_AFTER_DONE"
            )
        if offer.digest in self._open:
            self._again.setdefault(offer.digest, []).append(offer)
            return
        self._open[offer.digest] = offer
        if offer.digest in self._present:
            self._to_record.put_nowait(_Arrived(offer, None))
            return
        if offer.digest not in self._recorded_before:
            self._take_room(offer)
        if await asyncio.to_thread(self._importer.blobs.exists, offer.digest):
            self._to_examine.put_nowait((offer, None))
        elif offer.size_bytes == 0:
            self._to_examine.put_nowait((offer, b""))
        else:
            self._waiting.append(offer)
            self._ask()

    def _take_room(self, offer: Offer) -> None:
        if self._room <= 0:
            limit = self._importer.limits.max_pictures
            raise ResourceExhausted(
                f"{offer.file_name!r} would exceed the {limit} pictures of a dataset; split the style, or raise "
                "TERROIR_DATASET_MAX_PICTURES",
                reason="TOO_MANY",
                metadata={"limit": str(limit)},
            )
        self._room -= 1

    def _ask(self) -> None:
        while self._waiting:
            size = self._waiting[0].size_bytes
            if self._window and self._window + size > self._importer.limits.window_bytes:
                return
            offer = self._waiting.popleft()
            self._window += size
            self._parts[offer.digest] = PictureParts(offer.digest, size)
            self.answers.put_nowait(Wanted(offer.digest))

    def _received(self, chunk: Chunk) -> None:
        parts = self._parts.get(chunk.digest)
        if parts is None:
            # A repeated chunk may come after its picture was complete; it says nothing new.
            known = chunk.digest in self._present or chunk.digest in self._open
            if known and not any(offer.digest == chunk.digest for offer in self._waiting):
                return
            raise InvalidArgument(
                f"chunk of picture {chunk.digest[:80]!r}, which was not asked for; offer it and wait for `wanted`",
                reason="CHUNK_NOT_WANTED",
                field="chunk.digest",
            )
        parts.add(chunk.offset, chunk.data)
        self._importer.metrics.received(len(chunk.data))
        if parts.complete:
            del self._parts[chunk.digest]
            self._to_examine.put_nowait((self._open[chunk.digest], parts.take()))

    async def _examine(self) -> None:
        while True:
            offer, data = await self._to_examine.get()
            async with self._importer.decoding:
                picture = await asyncio.to_thread(self._importer.examine, offer, data)
            if data is not None:
                self._window -= len(data)
                del data
                self._ask()
            self._to_record.put_nowait(_Arrived(offer, picture))

    async def _record(self) -> None:
        while True:
            batch = [await self._to_record.get()]
            while not self._to_record.empty() and len(batch) < _RECORD_AT_ONCE:
                batch.append(self._to_record.get_nowait())
            for answer in await asyncio.to_thread(self._recorded, batch):
                self.answers.put_nowait(answer)
            for arrived in batch:
                self._settle(arrived.offer)
            self._finish_if_done()

    def _settle(self, offer: Offer) -> None:
        digest = offer.digest
        self._present.add(digest)
        del self._open[digest]
        if again := self._again.pop(digest, None):
            self._open[digest] = again[0]
            if again[1:]:
                self._again[digest] = again[1:]
            self._to_record.put_nowait(_Arrived(again[0], None))

    def _recorded(self, batch: list[_Arrived]) -> list[Judged]:
        """Append the batch to the album and judge it. Blocks; for a thread."""
        importer = self._importer
        before = importer.albums.load(self._dataset_id)
        pictures = [
            picture
            for arrived in batch
            if (picture := arrived.picture) and picture.replaces(before.pictures.get(picture.digest))
        ]
        captions = [edit for arrived in batch if (edit := _sidecar(before, arrived.offer))]
        after = importer.albums.append(
            self._dataset_id, Change(tuple(pictures), tuple(captions)), op_id=f"import/{uuid.uuid4()}"
        )
        judged = judge_some(after, (arrived.offer.digest for arrived in batch), importer.thresholds)
        answers = [Judged(picture, picture.picture.digest in before.pictures) for picture in judged]
        for answer in answers:
            if not answer.already_present:
                importer.metrics.imported(answer.picture.verdict, answer.picture.findings)
        return answers


def _readable_by_now(picture: Picture, limits: ImportLimits) -> bool:
    """Whether a recorded refusal no longer holds, because the operator raised the limit on pixels."""
    fact = picture.unreadable
    return fact is not None and fact.gate is Gate.PIXEL_LIMIT and fact.value <= limits.pixel_limit


def _sidecar(album: Album, offer: Offer) -> CaptionEdit | None:
    """The caption that the offer brings, unless the album has the same text."""
    if not offer.caption:
        return None
    known = album.captions.get(offer.digest, {}).get(CaptionKind.SIDECAR)
    same = known is not None and known.text == offer.caption
    return None if same else CaptionEdit(offer.digest, CaptionKind.SIDECAR, offer.caption)
