"""Sequenced documents: numbered JSON objects whose numbers are allocated by the create-only write itself."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from threading import Lock
from typing import Any, Protocol

from terroir.common.clock import Clock, SystemClock
from terroir.store.errors import (
    AlreadyExists,
    CorruptObject,
    EtagMismatch,
    InvalidKey,
    NotFound,
    OperationConflict,
    StoreUnavailable,
)
from terroir.store.interface import ObjectStore, ensure_key
from terroir.store.observer import tell_damaged

MUST_NOT_EXIST = ""
"""As `expected_etag`: the sequence must still be empty."""

_ETAG = re.compile(r"([1-9][0-9]{0,19})-[0-9a-f]{32}")
_NUMBER = re.compile(rb"[1-9][0-9]{0,19}")
_CONFLICTS_WITHOUT_PROGRESS = 16
_RESERVED = frozenset({"HEAD", "INDEX", "OPS"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Document:
    """One stored document of a sequence."""

    number: int
    """Counts from 1, without gaps."""
    body: dict[str, Any]
    op_id: str
    """Names the operation that wrote it; unique in the sequence."""
    etag: str
    """Changes with every document; opaque to callers."""
    created_at: str
    """RFC 3339, UTC."""
    request_digest: str
    """sha256 (hex) of the request that the operation stood for."""


class WriteLog(Protocol):
    """Hears of every write before and after it; `terroir.store.journal.Journal` is one."""

    def announce(self, sequence: str, op_id: str) -> None:
        """Called before a document is created; what it raises stops the write."""
        ...

    def written(self, sequence: str, document: Document) -> None:
        """Called when the operation's document is known to be stored; must not raise."""
        ...


class DocumentSequence:
    """`<prefix>/<020d>.json`, plus two kinds of helpers that are never authoritative.

    * `<prefix>/OPS/<sha256 of op_id>` holds the number of the document that the operation wrote.
    * `<prefix>/HEAD` holds the etag of a document near the head. It may lag, be missing or be garbage. It only ever
      moves past documents whose OPS marker is written.

    So a writer reads HEAD, then its own OPS marker, then every document after HEAD: if its operation was ever done,
    by whichever replica, one of the three shows it, however long ago. This order matters: HEAD read after the marker
    could have moved past a document whose marker came in between.

    Holds no state, so it is safe for threads. Writes raise `StoreUnavailable` when the outcome is unknown: repeat
    them with the same `op_id`.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        clock: Clock,
        *,
        before_first: Callable[[], None] | None = None,
        log: WriteLog | None = None,
    ) -> None:
        """`before_first` runs before document 1 is created; it may run again after a failure or lost race.

        `log` is told of every write (None: nobody follows this sequence).
        """
        self._store = store
        self._prefix = ensure_key(prefix)
        self._clock = clock
        self._before_first = before_first
        self._log = log

    def append(self, body: Mapping[str, Any], *, op_id: str, expected_etag: str | None = None) -> Document:
        """Write `body` as the next document; the body is also the request (see `append_with`)."""
        return self.append_with(lambda _: body, op_id=op_id, request=body, expected_etag=expected_etag)

    def append_with(
        self,
        build: Callable[[Document | None], Mapping[str, Any]],
        *,
        op_id: str,
        request: Mapping[str, Any],
        expected_etag: str | None = None,
    ) -> Document:
        """Write `build(head)` as the next document, once however often this is repeated with one `op_id`.

        `build` sees the head that the document will follow (None: the first) and runs again when another writer
        was faster; what it raises leaves the sequence as it was. `request` is what must be equal in a repeat: the
        caller's wishes, without times or results. Raises `OperationConflict` when `op_id` did another request,
        `EtagMismatch` when `expected_etag` is given and is not the head's (`MUST_NOT_EXIST`: not empty).
        """
        document = self._append_with(build, op_id, request, expected_etag)
        if self._log is not None:
            self._log.written(self._prefix, document)
        return document

    def _append_with(
        self,
        build: Callable[[Document | None], Mapping[str, Any]],
        op_id: str,
        request: Mapping[str, Any],
        expected_etag: str | None,
    ) -> Document:
        if not op_id:
            raise ValueError(f"empty op_id for {self._prefix} (pass the request's id)")
        request_digest = hashlib.sha256(_canonical(request)).hexdigest()
        head = self._hinted()
        number = self._marked_number(op_id)
        if number is not None:
            document = self._find(number)
            if document is not None and document.op_id == op_id:
                return self._same_request(document, request_digest)
            head = None  # a marker that lies (a half-restored copy of the store): believe only the documents
        unmarked: list[Document] = []
        stuck = 0
        announced = False
        while stuck < _CONFLICTS_WITHOUT_PROGRESS:
            stuck += 1
            for document in self.after(head.number if head else 0):
                if document.op_id == op_id:
                    return self._same_request(document, request_digest)
                head = document
                unmarked.append(document)
                stuck = 0
            self._check_etag(head, expected_etag)
            try:
                built = build(head)
            except Exception:
                if self._find(head.number + 1 if head else 1) is None:
                    raise
                continue  # it may have seen what was written meanwhile, such as by a repeat of this very operation
            body = self._encode(head, built, op_id, request_digest)
            if self._log is not None and not announced:
                self._log.announce(self._prefix, op_id)
                announced = True
            if head is None and self._before_first is not None:
                self._before_first()
            document = self._decode(head.number + 1 if head else 1, body)
            try:
                self._store.create(self._key(document.number), body)
            except AlreadyExists:
                continue  # another writer, or our own create repeated by a client below us: reading on tells
            self._publish([*unmarked, document])
            return document
        raise StoreUnavailable(
            f"{self._prefix}: {stuck} creates of document {head.number + 1 if head else 1} met an existing object that "
            "can't be read (this store does not read its own writes: use another)",
            self._prefix,
            "STORE_INCONSISTENT",
        )

    def head(self) -> Document:
        """The newest document; `NotFound` when there is none."""
        head = self._hinted()
        for document in self.after(head.number if head else 0):
            head = document
        if head is None:
            raise NotFound(f"{self._prefix} has no document (check the name)", self._prefix)
        return head

    def get(self, number: int) -> Document:
        """Document `number`; `NotFound`, `CorruptObject`."""
        document = self._find(number)
        if document is None:
            raise NotFound(f"{self._prefix} has no document {number} (numbers count from 1)", self._prefix)
        return document

    def exists(self) -> bool:
        """Whether the sequence has a document; one cheap request."""
        return self._store.exists(self._key(1))

    def find_operation(self, op_id: str) -> Document | None:
        """The document that an operation wrote, however long ago; None if it wrote none so far."""
        head = self._hinted()
        number = self._marked_number(op_id)
        if number is not None:
            document = self._find(number)
            if document is not None and document.op_id == op_id:
                return document
            head = None  # the marker lies: believe only the documents
        found = (document for document in self.after(head.number if head else 0) if document.op_id == op_id)
        return next(found, None)

    def after(self, number: int) -> Iterator[Document]:
        """Documents above `number`, oldest first, up to the head of this moment: what a reader has missed."""
        while document := self._find(number := number + 1):
            yield document

    def history(self) -> Iterator[Document]:
        """All documents, oldest first."""
        return self.after(0)

    def _key(self, number: int) -> str:
        return f"{self._prefix}/{number:020d}.json"

    def _marker_key(self, op_id: str) -> str:
        return f"{self._prefix}/OPS/{hashlib.sha256(op_id.encode()).hexdigest()}"

    def _find(self, number: int) -> Document | None:
        if number < 1:
            return None
        try:
            stored = self._store.get(self._key(number))
        except NotFound:
            return None
        return self._decode(number, stored)

    def _hinted(self) -> Document | None:
        """The document that HEAD names, if it does and the document is really the one that was meant."""
        try:
            hint = self._store.get(f"{self._prefix}/HEAD").decode("ascii", "replace")
        except NotFound:
            return None
        named = _ETAG.fullmatch(hint)
        document = self._find(int(named[1])) if named else None
        return document if document is not None and document.etag == hint else None

    def _marked_number(self, op_id: str) -> int | None:
        """The number in the marker of `op_id`: None without a marker, 0 when it is garbage."""
        try:
            marker = self._store.get(self._marker_key(op_id))
        except NotFound:
            return None
        return int(marker) if _NUMBER.fullmatch(marker) else 0

    def _publish(self, documents: list[Document]) -> None:
        """Write the markers of `documents` (consecutive, up to the newest), then move HEAD past them."""
        try:
            for document in documents:
                with suppress(AlreadyExists):
                    self._store.create(self._marker_key(document.op_id), str(document.number).encode())
            self._store.put(f"{self._prefix}/HEAD", documents[-1].etag.encode())
        except StoreUnavailable as error:
            # The document is written, so the operation has succeeded; the next writer makes up for the helpers.
            _log.warning("markers of %s are behind: %s", self._prefix, error)

    def _same_request(self, document: Document, request_digest: str) -> Document:
        if document.request_digest != request_digest:
            raise OperationConflict(
                f"{self._prefix}: operation {document.op_id!r} was already used by another request, which "
                f"wrote document {document.number} (repeat the same request, or choose a new request id)",
                self._prefix,
            )
        return document

    def _check_etag(self, head: Document | None, expected_etag: str | None) -> None:
        actual = head.etag if head else MUST_NOT_EXIST
        if expected_etag is not None and expected_etag != actual:
            raise EtagMismatch(
                f"{self._prefix}: etag {expected_etag!r} is not the newest, {actual!r} (read it again and repeat)",
                self._prefix,
            )

    def _encode(self, head: Document | None, body: Mapping[str, Any], op_id: str, request_digest: str) -> bytes:
        return _canonical(
            {
                "number": head.number + 1 if head else 1,
                "op_id": op_id,
                "request_digest": request_digest,
                "created_at": self._clock.now().astimezone(UTC).isoformat(timespec="milliseconds"),
                "body": body,
            }
        )

    def _decode(self, number: int, stored: bytes) -> Document:
        try:
            fields = json.loads(stored)
            document = Document(
                number=fields["number"],
                body=fields["body"],
                op_id=fields["op_id"],
                etag=f"{number}-{hashlib.sha256(stored).hexdigest()[:32]}",
                created_at=fields["created_at"],
                request_digest=fields["request_digest"],
            )
        except (ValueError, TypeError, KeyError) as error:
            raise self._corrupt(number) from error
        if document.number != number or not isinstance(document.body, dict):
            raise self._corrupt(number)
        return document

    def _corrupt(self, number: int) -> CorruptObject:
        key = self._key(number)
        tell_damaged(self._store)
        return CorruptObject(f"{key} is not document {number} (restore that object from a copy of the store)", key)


class Collection:
    """The sequences right below a prefix (`<prefix>/<child id>/<020d>.json`), found without LIST.

    `<prefix>/INDEX` is a sequence with a document per child, appended just before the child's first document.
    Holds what it has read of the index, so keep one value a process; safe for threads.
    """

    def __init__(
        self, store: ObjectStore, prefix: str, clock: Clock | None = None, *, log: WriteLog | None = None
    ) -> None:
        """`clock` stamps the index and the children's documents; `log` is told of the children's writes."""
        self._store = store
        self._prefix = ensure_key(prefix)
        self._clock = clock or SystemClock()
        self._log = log
        self.index = DocumentSequence(store, f"{prefix}/INDEX", self._clock)
        """Documents `{"id": …}`, one for each child that was about to begin."""
        self._lock = Lock()
        self._read_up_to = 0
        self._announced: set[str] = set()
        self._ids: set[str] = set()

    def ids(self) -> list[str]:
        """Sorted ids of the children that have a document; what a crash left without one is not listed."""
        with self._lock:
            for document in self.index.after(self._read_up_to):
                self._announced.add(document.body["id"])
                self._read_up_to = document.number
            begun = {child_id for child_id in self._announced if self.sequence(child_id).exists()}
            self._announced -= begun
            self._ids |= begun
            return sorted(self._ids)

    def sequence(self, child_id: str) -> DocumentSequence:
        """The child's documents; the child begins to exist with the first. `InvalidKey` for an id that can't be."""
        if "/" in child_id or child_id in _RESERVED:
            raise InvalidKey(f"{child_id!r} can't name a child of {self._prefix} (choose another id)", child_id)
        return DocumentSequence(
            self._store,
            f"{self._prefix}/{child_id}",
            self._clock,
            before_first=lambda: self._announce(child_id),
            log=self._log,
        )

    def _announce(self, child_id: str) -> None:
        self.index.append({"id": child_id}, op_id=child_id)


def _canonical(value: Mapping[str, Any]) -> bytes:
    """JSON with one spelling for equal values; raises `TypeError` or `ValueError` for what JSON can't hold."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()
