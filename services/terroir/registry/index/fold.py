"""The index: every published document folded into memory, for reads that ask no store. Knows no store and no thread."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Final

from terroir.registry.index.rows import AdapterRow, VersionFacts, hash_key, hashes_of, pack
from terroir.registry.index.search_texts import SearchTexts
from terroir.registry.moving.state import state_facts
from terroir.store.documents import Document
from terroir.store.errors import CorruptObject

ADAPTERS: Final = "adapters"
STATES: Final = "aliases"
BASES: Final = "bases"
REGIONS: Final = "regions"
"""Collections, and the one plain sequence, that the index folds."""

FACETS: Final = ("base", "region", "trigger_word", "tag", "alias")


@dataclass
class _Postings:
    """For each facet and value, the adapters that have it."""

    of: dict[str, dict[str, set[str]]] = field(default_factory=lambda: {facet: defaultdict(set) for facet in FACETS})

    def add(self, adapter: str, row: AdapterRow) -> None:
        for facet, value in _facets(row):
            self.of[facet][value].add(adapter)

    def remove(self, adapter: str, row: AdapterRow) -> None:
        for facet, value in _facets(row):
            holders = self.of[facet][value]
            holders.discard(adapter)
            if not holders:
                del self.of[facet][value]


class Index:
    """The fold of all documents; safe for threads.

    Documents of a sequence are applied in order; one that is known already changes nothing, one that comes too early is
    refused, so any interleaving of sources leads to the same fold.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._rows: dict[str, AdapterRow] = {}
        self._ids: list[str] = []
        """Of adapters with a version, sorted."""
        self._numbers: dict[str, int] = {}
        """Newest number of each sequence that has no row."""
        self._bases: dict[str, Document] = {}
        self._postings = _Postings()
        self._texts: SearchTexts | None = None
        """Built when a search needs it; None after a change."""
        self._hashes: dict[int, tuple[tuple[str, int], ...]] = {}
        self._trained_from: dict[str, tuple[tuple[str, int], ...]] = {}
        """By the name of a version, the versions whose training went on from it."""

    def number(self, sequence: str) -> int:
        """Number of the newest document of a sequence that is folded, 0 for none."""
        collection, _, child = sequence.partition("/")
        with self._lock:
            if collection not in (ADAPTERS, STATES):
                return self._numbers.get(sequence, 0)
            row = self._rows.get(child)
            if row is None:
                return 0
            return len(row.versions) if collection == ADAPTERS else row.state_number

    def apply(self, sequence: str, document: Document, packed: bytes | None = None) -> bool:
        """Fold the next document of a sequence; False if it was known. Raises ValueError for one that is too early.

        `packed` is the document as `pack` gives it, if the caller has it. Only the documents of versions must come
        without gaps: of the other sequences the newest is all that counts.
        """
        packed = packed or pack(document)
        with self._lock:
            known = self.number(sequence)
            if document.number <= known:
                return False
            collection, _, child = sequence.partition("/")
            if document.number != known + 1 and collection == ADAPTERS:
                raise ValueError(f"{sequence}: document {document.number} comes before {known + 1}")
            if collection == ADAPTERS:
                self._apply_version(child, document, packed)
            elif collection == STATES:
                self._apply_state(child, document, packed)
            else:
                self._numbers[sequence] = document.number
                if collection == BASES:
                    self._bases[child] = document
            return True

    def version(self, adapter: str, number: int | None = None) -> Document | None:
        """A version's document, the newest for None; None if it is not known."""
        with self._lock:
            row = self._rows.get(adapter)
            return row.version(len(row.versions) if number is None else number) if row is not None else None

    def outline(self, adapter: str) -> tuple[int, str] | None:
        """Number of the newest version and the time of the first one; None if there is none."""
        with self._lock:
            row = self._rows.get(adapter)
            return (len(row.versions), row.created_at) if row is not None and row.versions else None

    def knows(self, adapter: str) -> bool:
        """Whether a version of the adapter is known."""
        return self.number(f"{ADAPTERS}/{adapter}") > 0

    def state(self, adapter: str) -> Document | None:
        """The newest document of what moves of an adapter; None if there is none."""
        with self._lock:
            row = self._rows.get(adapter)
            return row.state_document() if row is not None else None

    def bases(self) -> dict[str, Document]:
        """Base documents by id."""
        with self._lock:
            return dict(self._bases)

    def ids(self) -> list[str]:
        """Adapters with a version, sorted."""
        with self._lock:
            return list(self._ids)

    def counts(self) -> tuple[int, int]:
        """How many adapters and versions are known."""
        with self._lock:
            return len(self._ids), sum(len(row.versions) for row in self._rows.values())

    def values(self, facet: str) -> list[str]:
        """All values of a facet that some adapter has."""
        with self._lock:
            return list(self._postings.of[facet])

    def with_value(self, facet: str, value: str) -> Set[str]:
        """Adapters whose newest version or aliases have a value."""
        with self._lock:
            return frozenset(self._postings.of[facet].get(value, ()))

    def count(self, facet: str, value: str) -> int:
        """How many adapters `with_value` has."""
        with self._lock:
            return len(self._postings.of[facet].get(value, ()))

    def find(
        self,
        after: str,
        accept: Callable[[AdapterRow], bool],
        limit: int,
        *,
        among: Set[str] | None = None,
        part: str = "",
    ) -> list[str]:
        """The first `limit` adapters by identifier behind `after` that are accepted.

        Only those `among` are looked at, or else those with `part` (lower case) in their text.
        """
        with self._lock:
            if among is not None:
                ids: Iterable[str] = sorted(key for key in among if key > after)
            elif part:
                ids = self._all_texts().ids_with(part, after)
            else:
                ids = self._ids[bisect_right(self._ids, after) :]
        rows, found = self._rows, []
        for key in ids:  # without the lock: rows are replaced in place and never removed
            if accept(rows[key]):
                found.append(key)
                if len(found) == limit:
                    break
        return found

    def with_hash(self, digits: str) -> list[tuple[str, Document]]:
        """Versions one of whose hashes begins with these 8 or more hexadecimal digits, in lower case."""
        with self._lock:
            candidates = [
                (adapter, self._rows[adapter].version(number))
                for adapter, number in self._hashes.get(hash_key(digits), ())
            ]
        return [
            (adapter, document)
            for adapter, document in candidates
            if document is not None and any(known.startswith(digits) for known in hashes_of(document.body))
        ]

    def trained_from(self, version: str) -> tuple[tuple[str, int], ...]:
        """Versions whose training went on from `adapters/{id}/versions/{number}`: (adapter, number)s, oldest first."""
        with self._lock:
            return self._trained_from.get(version, ())

    def packed(self) -> tuple[list[tuple[str, int, bytes]], int]:
        """All that a snapshot needs: (sequence, number, packed document)s, and the number of the regions' newest."""
        with self._lock:
            records = [
                (f"{BASES}/{base}", self._numbers[f"{BASES}/{base}"], pack(document))
                for base, document in sorted(self._bases.items())
            ]
            for adapter, row in sorted(self._rows.items()):  # so that a start appends to the ids, never inserts
                records += [(f"{ADAPTERS}/{adapter}", number, packed) for number, packed in enumerate(row.versions, 1)]
                if row.state_number:
                    records.append((f"{STATES}/{adapter}", row.state_number, row.state))
            return records, self._numbers.get(REGIONS, 0)

    def skip_regions(self, number: int) -> None:
        """Take the regions' documents up to `number` as known; the index keeps none of them."""
        with self._lock:
            self._numbers[REGIONS] = max(number, self._numbers.get(REGIONS, 0))

    def _all_texts(self) -> SearchTexts:
        if self._texts is None:
            rows = (self._rows[key].facts for key in self._ids)
            self._texts = SearchTexts(list(self._ids), (facts.text for facts in rows if facts is not None))
        return self._texts

    def _apply_version(self, adapter: str, document: Document, packed: bytes) -> None:
        with _readable(f"{ADAPTERS}/{adapter}", document):  # before anything is changed
            facts = VersionFacts.of(adapter, document)
            keys = {hash_key(digest) for digest in hashes_of(document.body)}
            parent = str(document.body["lineage"]["parent"])
        row = self._rows.setdefault(adapter, AdapterRow())
        first = not row.versions
        if not first:
            self._postings.remove(adapter, row)
        self._texts = None
        row.versions.append(packed)
        row.facts = facts
        self._postings.add(adapter, row)
        here = ((adapter, document.number),)
        for key in keys:
            there = self._hashes.get(key)
            # Hardly any two versions share a key, so the one tuple is shared by all keys of a version.
            self._hashes[key] = here if there is None else there + here
        if parent:
            self._trained_from[parent] = self._trained_from.get(parent, ()) + here
        if first:
            row.created_at = document.created_at
            insort(self._ids, adapter)

    def _apply_state(self, adapter: str, document: Document, packed: bytes) -> None:
        with _readable(f"{STATES}/{adapter}", document):
            aliases, deprecated = state_facts(document.body)
        row = self._rows.setdefault(adapter, AdapterRow())
        self._postings.remove(adapter, row)
        row.state, row.state_number = packed, document.number
        row.aliases, row.deprecated = aliases, deprecated
        if row.versions:
            self._postings.add(adapter, row)


@contextmanager
def _readable(sequence: str, document: Document) -> Iterator[None]:
    """Turn what a document of another shape raises into CorruptObject, which followers know to log and pass over."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptObject(
            f"document {document.number} of {sequence} is not of this release's form: {type(error).__name__} {error} "
            "(restore it from a copy of the store, or run the release that wrote it)",
            sequence,
        ) from error


def _facets(row: AdapterRow) -> Iterator[tuple[str, str]]:
    facts = row.facts
    if facts is None:
        return
    yield "base", facts.base
    yield "trigger_word", facts.trigger_word
    if facts.region:
        yield "region", facts.region
    for tag in facts.tags:
        yield "tag", tag
    for alias in row.aliases:
        yield "alias", alias
