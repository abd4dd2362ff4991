"""Freeze a dataset's usable pictures and captions into immutable, numbered versions.

A version's number is allocated by its document; its pictures are a blob, written first. Its digest is a function of the
pictures' digests, their captions, the gates and the trigger word, whatever the order of import.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import structlog
from pydantic import TypeAdapter

from terroir.common.clock import Clock
from terroir.dataset.album import Albums
from terroir.dataset.catalogue import Catalogue
from terroir.dataset.errors import CaptionsMissing, DatasetEmpty, VersionNotFound
from terroir.dataset.gates import gates_version, judge_count
from terroir.dataset.judging import judge_all
from terroir.dataset.model import Dataset, FrozenVersion, JudgedPicture
from terroir.dataset.thresholds import Thresholds
from terroir.store.blobs import Blobs
from terroir.store.documents import Document, DocumentSequence
from terroir.store.errors import NotFound
from terroir.store.interface import ObjectStore

_IMAGES: Final = TypeAdapter(tuple[JudgedPicture, ...])
_log = structlog.get_logger(__name__)


class _UnchangedError(Exception):
    """The newest version already is what a freeze would make."""

    def __init__(self, newest: Document) -> None:
        super().__init__()
        self.newest = newest


class Versions:
    """Freezes and reads versions. Safe for threads; every method blocks."""

    def __init__(
        self,
        store: ObjectStore,
        blobs: Blobs,
        catalogue: Catalogue,
        albums: Albums,
        thresholds: Thresholds,
        clock: Clock,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._catalogue = catalogue
        self._albums = albums
        self._thresholds = thresholds
        self._clock = clock

    def freeze(self, dataset_id: str, request_id: str) -> FrozenVersion:
        """Freeze what is usable now; the newest version if that would change nothing.

        Raises DatasetNotFound, DatasetEmpty or CaptionsMissing.
        """
        dataset = self._catalogue.get(dataset_id)

        def build(newest: Document | None) -> Mapping[str, Any]:
            body = self._body(dataset)
            if newest is not None and newest.body["digest"] == body["digest"]:
                raise _UnchangedError(newest)
            return body

        try:
            document = self._sequence(dataset_id).append_with(
                build, op_id=f"freeze/{request_id or uuid.uuid4()}", request={"dataset": dataset_id}
            )
        except _UnchangedError as unchanged:
            document = unchanged.newest
        return self._version(dataset_id, document, with_images=True)

    def get(self, dataset_id: str, number: int | None) -> FrozenVersion:
        """One version with its pictures; None is the newest. Raises DatasetNotFound or VersionNotFound."""
        self._catalogue.get(dataset_id)
        sequence = self._sequence(dataset_id)
        try:
            document = sequence.head() if number is None else sequence.get(number)
        except NotFound as error:
            name = f"datasets/{dataset_id}"
            raise VersionNotFound(f"a version of {name}" if number is None else f"{name}/versions/{number}") from error
        return self._version(dataset_id, document, with_images=True)

    def list(self, dataset_id: str, below: int | None, count: int) -> Sequence[FrozenVersion]:
        """At most `count` versions with numbers under `below` (None: all), newest first, without pictures."""
        self._catalogue.get(dataset_id)
        sequence = self._sequence(dataset_id)
        if below is None:
            try:
                below = sequence.head().number + 1
            except NotFound:
                return ()
        numbers = range(below - 1, max(0, below - 1 - count), -1)
        return [self._version(dataset_id, sequence.get(number), with_images=False) for number in numbers]

    def _sequence(self, dataset_id: str) -> DocumentSequence:
        return DocumentSequence(self._store, f"datasets/{dataset_id}/versions", self._clock)

    def _body(self, dataset: Dataset) -> dict[str, Any]:
        album = self._albums.load(dataset.dataset_id)
        usable = [picture for picture in judge_all(album, self._thresholds) if picture.usable]
        if not usable:
            raise DatasetEmpty(dataset.dataset_id, len(album.pictures))
        missing = sum(picture.caption is None for picture in usable)
        if missing:
            raise CaptionsMissing(dataset.dataset_id, missing, len(usable))
        for finding in judge_count(len(usable), self._thresholds):
            _log.warning("dataset_size", dataset=dataset.dataset_id, gate=finding.gate, message=finding.message)
        usable.sort(key=lambda picture: picture.picture.digest)
        return {
            "digest": self._digest(dataset, usable),
            "image_count": len(usable),
            "images_digest": self._blobs.put(_IMAGES.dump_json(tuple(usable))),
            "trigger_word": dataset.fields.trigger_word,
            "rights_statement": dataset.fields.rights_statement,
            "gates_version": gates_version(self._thresholds),
        }

    def _digest(self, dataset: Dataset, usable: Sequence[JudgedPicture]) -> str:
        content = {
            "pictures": [
                [picture.picture.digest, picture.caption.text if picture.caption else ""] for picture in usable
            ],
            "gates_version": gates_version(self._thresholds),
            "trigger_word": dataset.fields.trigger_word,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def _version(self, dataset_id: str, document: Document, *, with_images: bool) -> FrozenVersion:
        body = document.body
        images = _IMAGES.validate_json(self._blobs.get(body["images_digest"])) if with_images else ()
        return FrozenVersion(
            dataset_id=dataset_id,
            number=document.number,
            digest=body["digest"],
            image_count=body["image_count"],
            images=images,
            trigger_word=body["trigger_word"],
            rights_statement=body["rights_statement"],
            gates_version=body["gates_version"],
            created_at=datetime.fromisoformat(document.created_at),
        )
