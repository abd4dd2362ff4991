"""Snapshots of the index: what a replica knew at one place of the journal, so that the next start reads only the rest.

A blob of packed documents, and an entry of the sequence `index/snapshots` that names it. Never authoritative: one that
is damaged, too old to read, or of another journal is passed over, and the index is rebuilt from the documents.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog

from terroir.common.clock import Clock
from terroir.registry.index.fold import REGIONS, Index
from terroir.registry.index.following import Follower, PendingHint
from terroir.registry.index.rows import unpack
from terroir.store.blobs import Blobs
from terroir.store.documents import Document, DocumentSequence
from terroir.store.errors import CorruptObject, NotFound
from terroir.store.interface import ObjectStore
from terroir.store.journal import Hint, Journal

FORMAT: Final = 1
_KEPT: Final = 2
"""Blobs of older snapshots are deleted; the one before the newest is for a replica that is just reading it."""
_RECORD: Final = struct.Struct(">HII")
"""Bytes of the sequence's name, number, bytes of the packed document."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Found:
    """A snapshot's entry and its bytes."""

    body: dict[str, Any]
    data: bytes


class Snapshots:
    """Writes and reads snapshots; safe for threads and replicas, of which any may write."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._blobs = Blobs(store)
        self._sequence = DocumentSequence(store, "index/snapshots", clock)

    def write(self, index: Index, follower: Follower) -> int:
        """Keep what the index knows; returns the journal number that it is at. Raises StoreUnavailable.

        Costs about a second of one core and a copy of the packed documents in memory for 100,000 adapters.
        """
        records: list[tuple[str, int, bytes]] = []
        header: dict[str, Any] = {"format": FORMAT}

        def read(position: int, pending: list[PendingHint]) -> None:
            found, regions = index.packed()
            records.extend(found)
            header["journal"], header[REGIONS] = position, regions
            header["pending"] = [
                [each.entry, each.announced_at, each.hint.sequence, each.hint.op_id] for each in pending
            ]

        follower.frozen(read)
        digest = self._blobs.put(b"".join(_encoded(records)))
        header |= {"blob": digest, "records": len(records)}
        op_id = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
        document = self._sequence.append(header, op_id=op_id)
        self._forget(document)
        return int(header["journal"])

    def newest_place(self) -> int:
        """The journal number of the newest snapshot by any replica; 0 for none. Raises StoreUnavailable."""
        try:
            return int(self._sequence.head().body["journal"])
        except (NotFound, CorruptObject):
            return 0

    def load(self, index: Index, follower: Follower, journal: Journal) -> bool:
        """Fill an empty index; False if there is no snapshot that can be used. Raises StoreUnavailable."""
        found = self._newest(journal)
        if found is None:
            return False
        for sequence, number, packed in _decoded(found.data):
            index.apply(sequence, unpack(number, packed), packed)
        index.skip_regions(found.body[REGIONS])
        pending = [
            PendingHint(entry, announced_at, Hint(sequence, op_id))
            for entry, announced_at, sequence, op_id in found.body["pending"]
        ]
        follower.begin_at(found.body["journal"], pending)
        return True

    def _newest(self, journal: Journal) -> _Found | None:
        try:
            body = self._sequence.head().body
            if body["format"] != FORMAT:
                _log.warning("snapshot_of_another_format", format=body["format"], readable=FORMAT)
                return None
            place = int(body["journal"])
            if place and journal.find(place) is None:
                # A store whose journal was restored from before the snapshot: its numbers mean something else.
                _log.warning("snapshot_of_another_journal", journal=place)
                return None
            return _Found(body, self._blobs.get(body["blob"]))
        except NotFound:
            return None
        except CorruptObject as error:
            _log.warning("snapshot_damaged", error=str(error))
            return None

    def _forget(self, newest: Document) -> None:
        if newest.number <= _KEPT:
            return
        with suppress(NotFound, CorruptObject):
            old, *kept = (
                self._sequence.get(number).body["blob"] for number in range(newest.number - _KEPT, newest.number + 1)
            )
            if old not in kept:
                self._blobs.discard(old)


def _encoded(records: list[tuple[str, int, bytes]]) -> Iterator[bytes]:
    for sequence, number, packed in records:
        name = sequence.encode()
        yield _RECORD.pack(len(name), number, len(packed))
        yield name
        yield packed


def _decoded(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    view, at = memoryview(data), 0
    while at < len(data):
        name_bytes, number, packed_bytes = _RECORD.unpack_from(view, at)
        at += _RECORD.size
        name = bytes(view[at : at + name_bytes]).decode()
        at += name_bytes
        yield name, number, bytes(view[at : at + packed_bytes])
        at += packed_bytes
