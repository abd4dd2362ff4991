"""The journal: one global sequence of hints about which sequences are about to change.

Readers that must hear of every change tail it instead of listing the store. A hint comes before the write that it
announces, so no crash and no lost response hides a write; a hint whose write never happened costs its readers a few
looks. Nothing here is authoritative: the announced sequence alone says what was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from threading import Lock
from typing import Final

from terroir.common.clock import Clock
from terroir.store.documents import Document
from terroir.store.errors import AlreadyExists, CorruptObject, NotFound, StoreUnavailable
from terroir.store.interface import ObjectStore, ensure_key
from terroir.store.observer import tell_damaged

_MAX_HINTS_PER_ENTRY: Final = 256

WriteListener = Callable[[str, Document], None]
"""Told the sequence and the document of a write of this process that has succeeded."""


@dataclass(frozen=True)
class Hint:
    """An operation that was about to be written."""

    sequence: str
    """Prefix of the sequence, such as `adapters/jiangnan`."""
    op_id: str


@dataclass(frozen=True)
class JournalEntry:
    """One object of the journal: what one process was about to write at one moment."""

    number: int
    """Counts from 1, without gaps."""
    announced_at: str
    """RFC 3339, UTC."""
    hints: tuple[Hint, ...]


class _Waiting:
    """A hint on its way into an entry."""

    def __init__(self, hint: Hint) -> None:
        self.hint = hint
        self.done = False
        self.error: StoreUnavailable | None = None


class Journal:
    """`<prefix>/<020d>.json`, appended create-only by all replicas; implements `WriteLog`. Safe for threads.

    Hints that arrive while an entry is being written share the next one, so many writers in a process cost few
    objects.
    """

    def __init__(self, store: ObjectStore, prefix: str, clock: Clock) -> None:
        self._store = store
        self._prefix = ensure_key(prefix)
        self._clock = clock
        self._writing = Lock()
        self._queue_lock = Lock()
        self._queue: list[_Waiting] = []
        self._listeners: list[WriteListener] = []
        self._head = 0

    def announce(self, sequence: str, op_id: str) -> None:
        """Append a hint; repeats are harmless. Raises `StoreUnavailable`: then write nothing and try again later."""
        waiting = _Waiting(Hint(sequence, op_id))
        with self._queue_lock:
            self._queue.append(waiting)
        with self._writing:
            if not waiting.done:
                self._write_queued(waiting)
        if waiting.error is not None:
            raise StoreUnavailable(str(waiting.error), waiting.error.key, waiting.error.reason) from waiting.error

    def written(self, sequence: str, document: Document) -> None:
        """Tell this process's listeners that an announced write has succeeded."""
        for listener in self._listeners:
            listener(sequence, document)

    def listen(self, listener: WriteListener) -> None:
        """Call `listener` after each write of this process; it must not raise. Register before the first write."""
        self._listeners.append(listener)

    def after(self, number: int) -> Iterator[JournalEntry]:
        """Entries above `number`, oldest first, up to the newest of this moment; `CorruptObject` for a damaged one."""
        while True:
            number += 1
            entry = self.find(number)
            if entry is None:
                return
            self._head = max(self._head, number)
            yield entry

    def find(self, number: int) -> JournalEntry | None:
        """Entry `number`, if it is there; raises `CorruptObject`."""
        try:
            stored = self._store.get(self._key(number))
        except NotFound:
            return None
        return self._decode(number, stored)

    def last(self) -> int:
        """Number of the newest entry, 0 for none; takes a number of looks that grows with its logarithm at most."""
        self._head = self._last_from(self._head)
        return self._head

    def _write_queued(self, own: _Waiting) -> None:
        with self._queue_lock:
            # The own hint is in the first entry: whoever came earlier was served by the writer before.
            batch, self._queue = self._queue[:_MAX_HINTS_PER_ENTRY], self._queue[_MAX_HINTS_PER_ENTRY:]
            if own not in batch:
                self._queue.remove(own)
                batch.append(own)
        error: StoreUnavailable | None = StoreUnavailable(
            f"{self._prefix}: the writer of a shared entry was interrupted (try again)", self._prefix
        )
        try:
            self._append(tuple(waiting.hint for waiting in batch))
            error = None
        except StoreUnavailable as failure:
            error = failure
        finally:
            for waiting in batch:
                waiting.done, waiting.error = True, error

    def _append(self, hints: tuple[Hint, ...]) -> None:
        """Create the next entry; entries of others only move the number on, so this ends with the first free one."""
        while True:
            number = self._head + 1
            try:
                self._store.create(self._key(number), self._encode(number, hints))
            except AlreadyExists:
                self._head = self._last_from(number)
            else:
                self._head = number
                return

    def _last_from(self, known: int) -> int:
        """The newest number, from one that is known to exist (0: the beginning).

        Numbers have no gaps, so doubling steps and then halves find the end of a journal of any length.
        """
        step = 1
        while self._store.exists(self._key(known + step)):
            known += step
            step *= 2
        while step > 1:
            step //= 2
            if self._store.exists(self._key(known + step)):
                known += step
        return known

    def _key(self, number: int) -> str:
        return f"{self._prefix}/{number:020d}.json"

    def _encode(self, number: int, hints: tuple[Hint, ...]) -> bytes:
        return json.dumps(
            {
                "number": number,
                "announced_at": self._clock.now().astimezone(UTC).isoformat(timespec="milliseconds"),
                "hints": [{"sequence": hint.sequence, "op_id": hint.op_id} for hint in hints],
            },
            separators=(",", ":"),
        ).encode()

    def _decode(self, number: int, stored: bytes) -> JournalEntry:
        try:
            fields = json.loads(stored)
            hints = tuple(Hint(str(hint["sequence"]), str(hint["op_id"])) for hint in fields["hints"])
            entry = JournalEntry(fields["number"], str(fields["announced_at"]), hints)
        except (ValueError, TypeError, KeyError) as error:
            raise self._corrupt(number) from error
        if entry.number != number:
            raise self._corrupt(number)
        return entry

    def _corrupt(self, number: int) -> CorruptObject:
        key = self._key(number)
        tell_damaged(self._store)
        return CorruptObject(f"{key} is no entry of the journal (restore that object from a copy of the store)", key)
