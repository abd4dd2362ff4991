"""Which inference replica a request goes to: the one that holds its styles already, unless that one is too busy."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Final

from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir.client.ring import Ring
from terroir.common.clock import Clock, SystemClock
from terroir.common.errors import Unavailable

HEADER: Final = "x-terroir-composition"
"""gRPC metadata with the key's hash, for meshes that route by it; see docs/routing.md."""
CAPACITY: Final = 1.25
"""No replica gets more than so many times the average of what this client has in flight."""
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_TAG: Final = re.compile(r"<lora:([^:<>]+)")


def composition_key(request: pb.GenerateRequest) -> str:
    """What decides where a request is warm: its adapters, those of prompt tags too, and its region; empty without.

    Weights are left out: factors serve every weight, and merging is cheap beside loading.
    """
    names = {entry.adapter for entry in request.adapters}
    names |= {f"adapters/{name}" for name in _TAG.findall(request.prompt)}
    return " ".join([*sorted(names), *([request.region] if request.region else [])])


def header_of(key: str) -> str:
    """The key for everyone between: opaque, as adapters' names are nobody's business there."""
    return blake2b(key.encode(), digest_size=8).hexdigest()


class Router:
    """Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, arXiv 1608.01350). Thread safe.

    Load is what this client has in flight: each client keeps its own bound, and so together they keep it too. A replica
    that can't be reached is left out for a while, longer each time; its keys go on along the ring and come back.
    """

    def __init__(self, replicas: Iterable[str], *, capacity: float = CAPACITY, clock: Clock | None = None) -> None:
        self._ring = Ring(replicas)
        self._capacity = capacity
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._in_flight = dict.fromkeys(self._ring.replicas, 0)
        self._failures = dict.fromkeys(self._ring.replicas, 0)
        self._away_until = dict.fromkeys(self._ring.replicas, 0.0)

    @property
    def replicas(self) -> Sequence[str]:
        """All, sorted."""
        return self._ring.replicas

    @property
    def in_flight(self) -> dict[str, int]:
        """Requests by replica, now."""
        with self._lock:
            return dict(self._in_flight)

    @contextmanager
    def placed(self, key: str, without: Iterable[str] = ()) -> Iterator[str]:
        """The replica for a request, which counts as in flight until the end.

        `without` were tried already; Unavailable (NO_REPLICA) if none is left.
        """
        with self._lock:
            replica = self._choose(key, set(without))
            self._in_flight[replica] += 1
        try:
            yield replica
        finally:
            with self._lock:
                self._in_flight[replica] -= 1

    def failed(self, replica: str) -> None:
        """A replica could not be reached: leave it out for half a second, twice as long each time."""
        with self._lock:
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** self._failures[replica])
            self._failures[replica] += 1
            self._away_until[replica] = self._clock.monotonic() + pause

    def answered(self, replica: str) -> None:
        """A replica is well."""
        with self._lock:
            self._failures[replica] = 0
            self._away_until[replica] = 0.0

    def _choose(self, key: str, without: set[str]) -> str:
        now = self._clock.monotonic()
        left = [replica for replica in self._ring.replicas if replica not in without]
        if not left:
            raise Unavailable(
                f"none of the inference replicas {', '.join(self._ring.replicas)} can be reached; try again",
                reason="NO_REPLICA",
                retry_after_seconds=_FIRST_PAUSE_SECONDS,
            )
        well = [replica for replica in left if self._away_until[replica] <= now] or left
        if not key:  # nothing is warm for it anywhere
            return min(well, key=lambda replica: (self._in_flight[replica], replica))
        total = sum(self._in_flight[replica] for replica in well) + 1
        bound = math.ceil(self._capacity * total / len(well))
        return next(r for r in self._ring.order(key) if r in well and self._in_flight[r] < bound)
