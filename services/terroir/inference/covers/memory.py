"""Sets and files of covers in memory, within a budget of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
ENTRY_BYTES: Final = 1024
"""What an entry takes beside its own bytes, about."""


class ByteCache(Generic[Key, Value]):
    """Keeps what was asked for last. One event loop owns it."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._entries: OrderedDict[Key, tuple[Value, int, float]] = OrderedDict()
        self.used_bytes = 0

    def get(self, key: Key, now: float) -> Value | None:
        """What is kept, unless its time has passed."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, _, until = entry
        if now >= until:
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: Key, value: Value, size_bytes: int, until: float = float("inf")) -> None:
        """Keep a value until a reading of the clock that `get` is given; what is larger than the budget is not kept."""
        self.drop(key)
        size = size_bytes + ENTRY_BYTES
        if size > self._budget_bytes:
            return
        self._entries[key] = (value, size, until)
        self.used_bytes += size
        while self.used_bytes > self._budget_bytes:
            _, (_, freed, _) = self._entries.popitem(last=False)
            self.used_bytes -= freed

    def drop(self, key: Key) -> None:
        """Forget it."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.used_bytes -= entry[1]

    def __len__(self) -> int:
        return len(self._entries)
