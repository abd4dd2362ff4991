"""Base models: registered by the operator's settings at start, one immutable document each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from terroir.lora.key_table import KeyTable, key_table_of
from terroir.registry.base_folder import BaseContent, read_base_folder
from terroir.registry.errors import BaseChanged, BaseFolderInvalid, BaseNotFound
from terroir.registry.names import base_name
from terroir.store.blobs import Blobs
from terroir.store.documents import MUST_NOT_EXIST, Collection, Document
from terroir.store.errors import EtagMismatch, NotFound, OperationConflict

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Base:
    """A registered base model."""

    base: str
    family: str
    digest: str
    prediction_type: str
    component_digests: Mapping[str, str]
    adaptable_layers: int
    native_resolution: int
    shapes_digest: str
    """Blob of every tensor's shape, by component; the key table is derived from it."""
    created_at: str
    """RFC 3339, UTC."""


class Bases:
    """Registers and reads base models. A base never changes, so what was read once is kept."""

    def __init__(self, sequences: Collection, blobs: Blobs) -> None:
        self._sequences = sequences
        self._blobs = blobs
        self._known: dict[str, Base] = {}
        self._tables: dict[str, KeyTable] = {}

    def register(self, base: str, folder: Path) -> Base:
        """Register the folder's content under an id; equal content again changes nothing.

        A folder that is missing is only a warning once the base is registered, because adapters need its key table and
        digest, not its weights. Raises BaseFolderInvalid, or BaseChanged for other content under a known id.
        """
        try:
            content = read_base_folder(folder)
        except BaseFolderInvalid as error:
            if folder.is_dir() or not self._exists(base):
                raise BaseFolderInvalid(
                    f"cannot register {base_name(base)}: {error} (set TERROIR_REGISTRY_BASE_SOURCES)",
                    reason=error.reason,
                ) from error
            _log.warning("base_folder_missing", base=base_name(base), folder=str(folder), kept="earlier registration")
            return self.get(base)
        return self._store(base, content)

    def get(self, base: str) -> Base:
        """One base; raises BaseNotFound."""
        if base not in self._known:
            try:
                self._known[base] = _base(base, self._sequences.sequence(base).head())
            except NotFound as error:
                known = ", ".join(map(base_name, self._sequences.ids())) or "none"
                raise BaseNotFound(
                    f"{base_name(base)} is not registered; registered are: {known} (set TERROIR_REGISTRY_BASE_SOURCES)",
                    metadata={"base": base_name(base)},
                ) from error
        return self._known[base]

    def all(self) -> list[Base]:
        """All bases by id."""
        return [self.get(base) for base in self._sequences.ids()]

    def key_table(self, base: Base) -> KeyTable:
        """What an adapter for this base may change."""
        digest = base.shapes_digest
        if digest not in self._tables:
            stored: dict[str, dict[str, list[int]]] = json.loads(self._blobs.get(digest))
            shapes = {part: {key: tuple(shape) for key, shape in keys.items()} for part, keys in stored.items()}
            self._tables[digest] = key_table_of(**shapes)
        return self._tables[digest]

    def _exists(self, base: str) -> bool:
        return self._sequences.sequence(base).exists()

    def _store(self, base: str, content: BaseContent) -> Base:
        body: dict[str, Any] = {
            "family": content.family,
            "digest": content.digest,
            "prediction_type": content.prediction_type,
            "component_digests": dict(content.component_digests),
            "adaptable_layers": len(key_table_of(**content.shapes)),
            "native_resolution": content.native_resolution,
            "shapes_digest": self._blobs.put(json.dumps(content.shapes, sort_keys=True).encode()),
        }
        identity = {"digest": content.digest, "prediction_type": content.prediction_type}
        try:
            self._sequences.sequence(base).append_with(
                lambda _: body, op_id=content.digest, request=identity, expected_etag=MUST_NOT_EXIST
            )
        except (EtagMismatch, OperationConflict) as error:
            registered = self.get(base)
            raise BaseChanged(
                f"{base_name(base)} is registered with digest {registered.digest[:12]} ({registered.prediction_type}), "
                f"its folder now holds {content.digest[:12]} ({content.prediction_type}); adapters are bound to the "
                "old weights: register the new under another id, or restore the folder",
                metadata={"base": base_name(base), "registered": registered.digest, "found": content.digest},
            ) from error
        return self.get(base)


def _base(base: str, document: Document) -> Base:
    return Base(base=base, created_at=document.created_at, **document.body)
