"""A cache with a byte budget whose entries can't be evicted while they are in use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass
class _Entry(Generic[Value]):
    value: Value
    size_bytes: int
    pins: int


class PinnedLru(Generic[Value]):
    """Evicts the least recently pinned entries that nobody holds. One thread or one event loop owns it.

    Pinned entries may exceed the budget; whoever adds decides whether that is allowed (`pinned_bytes`).
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._entries: OrderedDict[object, _Entry[Value]] = OrderedDict()

    @property
    def pinned_bytes(self) -> int:
        """Bytes that can't be evicted now."""
        return sum(entry.size_bytes for entry in self._entries.values() if entry.pins)

    def pin(self, key: object) -> Value | None:
        """The entry, now held and most recently used; None if it is not here."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        entry.pins += 1
        self._entries.move_to_end(key)
        return entry.value

    def add(self, key: object, value: Value, size_bytes: int) -> None:
        """Put in an entry that nobody holds yet; it may be evicted at once if it does not fit."""
        if key in self._entries:
            raise KeyError(f"{key!r} is already in the cache")
        self._entries[key] = _Entry(value, size_bytes, pins=0)
        self.used_bytes += size_bytes

    def unpin(self, key: object) -> None:
        """Let go of an entry; evicts what no longer fits."""
        entry = self._entries[key]
        if entry.pins == 0:
            raise KeyError(f"{key!r} is not pinned")
        entry.pins -= 1
        self.evict()

    def evict(self) -> None:
        """Drop unpinned entries, least recently used first, until the budget holds."""
        for key in [key for key, entry in self._entries.items() if entry.pins == 0]:
            if self.used_bytes <= self.budget_bytes:
                return
            self.used_bytes -= self._entries.pop(key).size_bytes

    def __iter__(self) -> Iterator[tuple[Value, int]]:
        """Entries with their sizes in bytes, least recently used first."""
        for entry in self._entries.values():
            yield entry.value, entry.size_bytes
