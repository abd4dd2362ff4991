"""A hash ring of replicas: the same key goes to the same replica in every process, and few keys move when one joins."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final

VIRTUAL_NODES: Final = 128
"""Points a replica; its share of the keys then varies by about 1 / √128, 9 %."""


class Ring:
    """Consistent hashing (Karger et al., STOC 1997). Immutable."""

    def __init__(self, replicas: Iterable[str], virtual_nodes: int = VIRTUAL_NODES) -> None:
        """ValueError without replicas."""
        self.replicas = tuple(sorted(set(replicas)))
        if not self.replicas:
            raise ValueError("a ring needs a replica")
        self._nodes = sorted(
            (_point(f"{replica}#{n}"), replica) for replica in self.replicas for n in range(virtual_nodes)
        )
        self._points = [point for point, _ in self._nodes]

    def order(self, key: str) -> Iterator[str]:
        """All replicas, each once, as they follow the key's point clockwise; the first one is the key's home."""
        begin = bisect(self._points, _point(key))
        seen: set[str] = set()
        for offset in range(len(self._nodes)):
            replica = self._nodes[(begin + offset) % len(self._nodes)][1]
            if replica not in seen:
                seen.add(replica)
                yield replica
                if len(seen) == len(self.replicas):
                    return


def _point(text: str) -> int:
    """Not Python's hash, which differs by process."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
