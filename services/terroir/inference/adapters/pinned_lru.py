"""A cache with a byte budget whose entries can't be evicted while they are in use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass
class _Entry(Generic[Value]):
    value: Value
    size_bytes: int
    pins: int = 0
    doomed: bool = False


class PinnedLru(Generic[Value]):
    """Evicts the least recently pinned entries that nobody holds. One thread or one event loop owns it.

    Pinned entries may exceed the budget; whoever adds decides whether that is allowed (`pinned_bytes`).
    """

    def __init__(self, budget_bytes: int, on_gone: Callable[[Value], None] | None = None) -> None:
        """`on_gone` hears of every entry that was evicted or discarded, once it is out."""
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self.pinned_bytes = 0
        """Bytes that can't be evicted now."""
        self._on_gone = on_gone
        self._entries: OrderedDict[object, _Entry[Value]] = OrderedDict()

    @property
    def count(self) -> int:
        """Entries held."""
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def pins(self, key: object) -> int:
        """How many hold the entry; 0 if it is not here."""
        entry = self._entries.get(key)
        return 0 if entry is None else entry.pins

    def pin(self, key: object) -> Value | None:
        """The entry, now held and most recently used; None if it is not here."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.pins == 0:
            self.pinned_bytes += entry.size_bytes
        entry.pins += 1
        self._entries.move_to_end(key)
        return entry.value

    def add(self, key: object, value: Value, size_bytes: int) -> None:
        """Put in an entry that nobody holds yet; it may be evicted at once if it does not fit."""
        if key in self._entries:
            raise KeyError(f"{key!r} is already in the cache")
        self._entries[key] = _Entry(value, size_bytes)
        self.used_bytes += size_bytes

    def unpin(self, key: object) -> None:
        """Let go of an entry; evicts what no longer fits."""
        entry = self._entries[key]
        if entry.pins == 0:
            raise KeyError(f"{key!r} is not pinned")
        entry.pins -= 1
        if entry.pins == 0:
            self.pinned_bytes -= entry.size_bytes
        if entry.doomed and entry.pins == 0:
            self._drop(key)
        self.evict()

    def discard(self, key: object) -> None:
        """Drop an entry as soon as nobody holds it; one that is not here is ignored."""
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.doomed = True
        if entry.pins == 0:
            self._drop(key)

    def evict(self, room_bytes: int = 0) -> None:
        """Drop unpinned entries, least recently used first, until the budget holds with `room_bytes` more."""
        excess = self.used_bytes + room_bytes - self.budget_bytes
        going = []
        for key, entry in self._entries.items():
            if excess <= 0:
                break
            if entry.pins == 0:
                going.append(key)
                excess -= entry.size_bytes
        for key in going:
            self._drop(key)

    def __iter__(self) -> Iterator[tuple[Value, int]]:
        """Entries with their sizes in bytes, least recently used first."""
        for entry in self._entries.values():
            yield entry.value, entry.size_bytes

    def _drop(self, key: object) -> None:
        entry = self._entries.pop(key)
        self.used_bytes -= entry.size_bytes
        if self._on_gone is not None:
            self._on_gone(entry.value)
