"""Drafts and human texts of captions. Captions are kept without the trigger word, which versions list apart."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from terroir.common.clock import Clock
from terroir.common.errors import InvalidArgument
from terroir.common.validation import ensure_digest, ensure_text
from terroir.dataset.album import Albums, Change
from terroir.dataset.errors import ImageNotFound
from terroir.dataset.judging import judge_all, judge_some
from terroir.dataset.metrics import DatasetMetrics
from terroir.dataset.model import CaptionEdit, CaptionKind, JudgedPicture, Picture
from terroir.dataset.offers import MAX_CAPTION_CHARACTERS
from terroir.dataset.tagging import Tagger, Thumbnail, thumbnail
from terroir.dataset.thresholds import Thresholds
from terroir.store.blobs import Blobs

TAGGER: Final = "tagger"
_BATCH: Final = 8


@dataclass(frozen=True)
class Captioned:
    """A picture with its new draft, and how far the call is."""

    picture: JudgedPicture
    done: int
    total: int


class Captions:
    """Writes captions."""

    def __init__(
        self,
        albums: Albums,
        blobs: Blobs,
        tagger: Tagger,
        thresholds: Thresholds,
        metrics: DatasetMetrics,
        clock: Clock,
    ) -> None:
        self._albums = albums
        self._blobs = blobs
        self._tagger = tagger
        self._thresholds = thresholds
        self._metrics = metrics
        self._clock = clock

    async def draft(self, dataset_id: str, captioner: str) -> AsyncGenerator[Captioned, None]:
        """Draft captions for usable pictures that have none; each is stored before it is yielded."""
        if captioner not in ("", TAGGER):
            raise InvalidArgument(
                f"captioner {captioner[:80]!r} is unknown; leave it empty or send {TAGGER!r}",
                reason="UNKNOWN_CAPTIONER",
                field="captioner",
            )
        bare = await asyncio.to_thread(self._bare, dataset_id)
        remaining, done = iter(bare), 0
        while batch := list(islice(remaining, _BATCH)):
            for picture in await self._draft_batch(dataset_id, batch):
                done += 1
                yield Captioned(picture, done, len(bare))

    def update(self, dataset_id: str, digest: str, text: str, request_id: str) -> JudgedPicture:
        """Set the human text of one picture. Blocks."""
        ensure_digest(digest, "digest")
        text = ensure_text(text, "text", MAX_CAPTION_CHARACTERS).strip()
        if not text:
            raise InvalidArgument(
                f"the caption is empty; send 1 to {MAX_CAPTION_CHARACTERS} characters",
                reason="CAPTION_EMPTY",
                field="text",
            )
        if digest not in self._albums.load(dataset_id).pictures:
            raise ImageNotFound(dataset_id, digest)
        edit = CaptionEdit(digest, CaptionKind.HUMAN, text)
        album = self._albums.append(
            dataset_id, Change(captions=(edit,)), op_id=f"update-caption/{request_id or uuid.uuid4()}"
        )
        return judge_some(album, [digest], self._thresholds)[0]

    def _bare(self, dataset_id: str) -> Sequence[JudgedPicture]:
        judged = judge_all(self._albums.load(dataset_id), self._thresholds)
        return [picture for picture in judged if picture.usable and picture.caption is None]

    async def _draft_batch(self, dataset_id: str, batch: Sequence[JudgedPicture]) -> Sequence[JudgedPicture]:
        started = self._clock.monotonic()
        thumbnails = [await asyncio.to_thread(self._thumbnail, judged.picture) for judged in batch]
        drafts = await self._tagger.draft(thumbnails)
        self._metrics.captioned(self._clock.monotonic() - started)
        edits = tuple(
            CaptionEdit(judged.picture.digest, CaptionKind.TAGGER, draft.text, draft.agreement)
            for judged, draft in zip(batch, drafts, strict=True)
        )
        return await asyncio.to_thread(self._record, dataset_id, edits)

    def _thumbnail(self, picture: Picture) -> Thumbnail:
        return thumbnail(self._blobs.get(picture.digest))

    def _record(self, dataset_id: str, edits: tuple[CaptionEdit, ...]) -> Sequence[JudgedPicture]:
        album = self._albums.append(dataset_id, Change(captions=edits), op_id=f"draft/{uuid.uuid4()}")
        return judge_some(album, [edit.digest for edit in edits], self._thresholds)
