"""The datasets there are, and each one's own fields."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Final

from pydantic import TypeAdapter

from terroir.common.errors import AlreadyExists
from terroir.common.validation import ensure_identifier, ensure_text
from terroir.dataset.album import Albums
from terroir.dataset.errors import DatasetNotFound
from terroir.dataset.model import Dataset, DatasetFields
from terroir.store.documents import MUST_NOT_EXIST, Collection, Document
from terroir.store.errors import EtagMismatch, NotFound

_FIELDS: Final = TypeAdapter(DatasetFields)
_LONGEST: Final = {
    "display_name": 120,
    "region": 64,
    "description": 2000,
    "trigger_word": 64,
    "license": 200,
    "rights_statement": 2000,
}
"""Most characters of each field."""


class Catalogue:
    """Creates, reads and lists datasets. Safe for threads; every method blocks."""

    def __init__(self, collection: Collection, albums: Albums) -> None:
        self._collection = collection
        self._albums = albums

    def create(self, dataset_id: str, fields: DatasetFields, request_id: str) -> Dataset:
        """Create an empty dataset. Raises AlreadyExists with DATASET_EXISTS, unless `request_id` created it."""
        ensure_identifier(dataset_id, "dataset_id")
        for name, text in asdict(fields).items():
            ensure_text(text, f"dataset.{name}", _LONGEST[name])
        try:
            document = self._collection.sequence(dataset_id).append(
                asdict(fields), op_id=f"create/{request_id or uuid.uuid4()}", expected_etag=MUST_NOT_EXIST
            )
        except EtagMismatch as error:
            raise AlreadyExists(
                f"datasets/{dataset_id} exists already; import into it, or choose another identifier",
                reason="DATASET_EXISTS",
                metadata={"resource": f"datasets/{dataset_id}"},
            ) from error
        return self._described(dataset_id, document)

    def get(self, dataset_id: str) -> Dataset:
        """One dataset. Raises DatasetNotFound."""
        ensure_identifier(dataset_id, "dataset")
        try:
            document = self._collection.sequence(dataset_id).head()
        except NotFound as error:
            raise DatasetNotFound(dataset_id) from error
        return self._described(dataset_id, document)

    def list(self, after: str, count: int) -> Sequence[Dataset]:
        """At most `count` datasets whose identifiers come after `after`, in order."""
        later = [dataset_id for dataset_id in self._collection.ids() if dataset_id > after]
        return [self.get(dataset_id) for dataset_id in later[:count]]

    def _described(self, dataset_id: str, document: Document) -> Dataset:
        return Dataset(
            dataset_id=dataset_id,
            fields=_FIELDS.validate_python(document.body),
            image_count=len(self._albums.load(dataset_id).pictures),
            created_at=datetime.fromisoformat(document.created_at),
            etag=document.etag,
        )
