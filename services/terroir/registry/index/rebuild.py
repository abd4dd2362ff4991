"""Rebuilds the index from the documents themselves: the start without a usable snapshot."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

import structlog

from terroir.common.clock import Clock
from terroir.registry.index.fold import ADAPTERS, BASES, REGIONS, STATES, Index
from terroir.registry.index.following import PENDING_SECONDS, Follower
from terroir.store.documents import Document, DocumentSequence
from terroir.store.errors import CorruptObject, NotFound
from terroir.store.interface import ObjectStore
from terroir.store.journal import Journal

_AHEAD: Final = 512
"""Reads that are under way or wait for the fold, so that memory stays bounded."""

_log = structlog.get_logger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class Rebuild:
    """Reads every document, `parallel_reads` at a time."""

    def __init__(self, store: ObjectStore, journal: Journal, clock: Clock, parallel_reads: int) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock
        self._parallel_reads = parallel_reads

    def fill(self, index: Index, follower: Follower) -> None:
        """Fill an empty index. Raises StoreUnavailable; of a sequence with a damaged document the rest is left out."""
        recent = self._clock.now() - timedelta(seconds=PENDING_SECONDS)
        # Before the first read: what is announced from here on is read again, so nothing falls between.
        follower.begin_at(self._first_entry_since(recent) - 1, [])
        with ThreadPoolExecutor(self._parallel_reads, "registry-rebuild") as pool:
            for collection in (BASES, ADAPTERS, STATES):
                for sequence, documents in self._read(pool, collection):
                    try:
                        for document in documents:
                            index.apply(sequence, document)
                            if datetime.fromisoformat(document.created_at) >= recent:
                                follower.remember(sequence, document.op_id)
                    except CorruptObject as error:
                        _log.error("document_damaged", error=str(error))
        try:
            index.skip_regions(self._sequence(REGIONS).head().number)
        except NotFound:
            index.skip_regions(0)

    def _read(self, pool: ThreadPoolExecutor, collection: str) -> Iterator[tuple[str, list[Document]]]:
        announcements = self._sequence(f"{collection}/INDEX")
        numbers = range(1, _length(announcements) + 1)
        ids = sorted(set(filter(None, _ahead(pool, partial(_announced, announcements), numbers))))
        newest_only = collection == STATES

        def read(child: str) -> tuple[str, list[Document]]:
            name = f"{collection}/{child}"
            return name, self._documents(self._sequence(name), newest_only=newest_only)

        yield from _ahead(pool, read, ids)

    def _documents(self, sequence: DocumentSequence, *, newest_only: bool) -> list[Document]:
        found: list[Document] = []
        try:
            if newest_only:
                return [sequence.head()]
            for document in sequence.history():
                found.append(document)  # noqa: PERF402 (what was read before a damaged one counts)
        except NotFound:
            return []  # announced, never begun
        except CorruptObject as error:
            _log.error("document_damaged", error=str(error))
        return found

    def _first_entry_since(self, moment: datetime) -> int:
        """The oldest journal entry whose hints may still come true; entries are nearly in the order of time."""
        low, high = 1, self._journal.last() + 1
        while low < high:
            middle = (low + high) // 2
            if self._is_before(middle, moment):
                low = middle + 1
            else:
                high = middle
        return low

    def _is_before(self, number: int, moment: datetime) -> bool:
        try:
            entry = self._journal.find(number)
        except CorruptObject:  # is logged when it is read again; until then it may be young
            return False
        return entry is not None and datetime.fromisoformat(entry.announced_at) < moment

    def _sequence(self, name: str) -> DocumentSequence:
        return DocumentSequence(self._store, name, self._clock)


def _announced(announcements: DocumentSequence, number: int) -> str:
    """Id of the child that an entry of a collection's index names; empty for a damaged entry."""
    try:
        return str(announcements.get(number).body["id"])
    except (CorruptObject, KeyError) as error:
        _log.error("announcement_damaged", error=str(error))
        return ""


def _length(sequence: DocumentSequence) -> int:
    try:
        return sequence.head().number
    except NotFound:
        return 0


def _ahead(pool: ThreadPoolExecutor, call: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`call` of every item, in order, with a bounded number of calls ahead of the reader."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) >= _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
