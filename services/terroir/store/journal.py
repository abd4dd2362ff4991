"""The journal: one global sequence of hints about which sequences are about to change.

Readers that must hear of every change tail it instead of listing the store. A hint comes before the write that it
announces, so no crash and no lost response hides a write; a hint whose write never happened costs its readers a few
looks. Nothing here is authoritative: the announced sequence alone says what was written.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final

from terroir.common.clock import Clock
from terroir.store.documents import Document
from terroir.store.errors import AlreadyExists, CorruptObject, NotFound, StoreUnavailable
from terroir.store.interface import ObjectStore, ensure_key
from terroir.store.observer import tell_damaged

_MAX_HINTS_PER_ENTRY: Final = 256
_BLOCK: Final = 64
"""Entries that are trimmed together."""
_KEPT: Final = 1024
"""Newest entries, which are never trimmed."""
_FRESH: Final = timedelta(hours=1)
"""What was the newest entry before that is no place to go on from: those after it may be trimmed."""

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
    """Counts from 1, without gaps but those of `Journal.trim`."""
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
        self._head_seen = datetime.min.replace(tzinfo=UTC)

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
        self._saw(self._last_from(self._head) if self._fresh() else self._last_of_all())
        return self._head

    def trim(self, older_than: timedelta) -> bool:
        """Delete the oldest block of entries if it is older, and say whether it did; any replica may, at any time.

        Only for journals whose readers, after half as long without a look, read anew what is announced in them. Entries
        that a search for the newest looks at stay, as many as the logarithm of its number.
        """
        blocks = max(0, self.last() + 1 - _KEPT) // _BLOCK
        oldest = bisect_left(range(blocks), True, key=lambda block: self._store.exists(self._key(_end(block))))
        if oldest == blocks or not self._is_older(_end(oldest), older_than):
            return False
        for number in _dispensable(oldest):
            self._store.delete(self._key(number))
        return True

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
        if not self._fresh():
            self._saw(self._last_of_all())
        while True:
            number = self._head + 1
            try:
                self._store.create(self._key(number), self._encode(number, hints))
            except AlreadyExists:
                self._saw(self._last_from(number))
            else:
                self._saw(number)
                return

    def _saw(self, newest: int) -> None:
        self._head, self._head_seen = newest, self._clock.now()

    def _fresh(self) -> bool:
        return self._clock.now() - self._head_seen < _FRESH

    def _is_older(self, number: int, older_than: timedelta) -> bool:
        try:
            entry = self.find(number)
            return entry is not None and self._clock.now() - datetime.fromisoformat(entry.announced_at) > older_than
        except (CorruptObject, ValueError):  # it tells no time, and lies far behind the newest
            return True

    def _last_of_all(self) -> int:
        """The newest number, found by looks at entries that are never trimmed."""
        return self._last_from(1) if self._store.exists(self._key(1)) else 0

    def _last_from(self, known: int) -> int:
        """The newest number, from one that is known to exist and after which nothing is trimmed, or from 1.

        Doubling steps and then halves find the end of a journal of any length. From 1 they look at powers of two, and
        then at numbers that have the first binary digits of the newest, which `trim` leaves.
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


def _end(block: int) -> int:
    """Number of a block's last entry."""
    return (block + 1) * _BLOCK - 1


def _dispensable(block: int) -> list[int]:
    """What may go with a block, its last entry last: what no search for a later number from 1 looks at."""
    looked_at = {part * _BLOCK for part in _leading(block + 1)}
    numbers = {*range(block * _BLOCK, _end(block) + 1), *(part * _BLOCK for part in _leading(block))}
    return sorted(number for number in numbers - looked_at if number & (number - 1))


def _leading(number: int) -> Iterator[int]:
    """The number with ever more of its last binary ones cleared."""
    while number:
        yield number
        number &= number - 1
