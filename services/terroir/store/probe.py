"""Whether a store keeps the promise that everything rests on: of racing creates exactly one wins.

Several S3 services shipped conditional writes that were ignored or racy (SeaweedFS#8800, RustFS#1659, early MinIO), and
a store that silently ignores a condition loses data without an error. So every writer asks before it serves.
"""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import Final

from terroir.store.errors import AlreadyExists, StoreUnavailable
from terroir.store.interface import ObjectStore

RACERS: Final = 16


def ensure_conditional(store: ObjectStore, place: str) -> None:
    """Raise StoreUnavailable (STORE_NOT_CONDITIONAL) unless creates are atomic and writes are read back.

    Writes one object under `probe/` and removes it; raises what the store raises if it can't be written.
    """
    key = f"probe/{uuid.uuid4().hex}"
    bodies = [f"racer {number}".encode() for number in range(RACERS)]
    barrier = Barrier(RACERS)

    def race(body: bytes) -> bool:
        barrier.wait()
        try:
            store.create(key, body)
        except AlreadyExists:
            return False
        return True

    try:
        # The first write alone: what is plainly wrong (read-only, no bucket) is one error then, not sixteen.
        store.create(f"{key}-alone", b"first")
        with ThreadPoolExecutor(RACERS) as pool:
            won = [body for body, winner in zip(bodies, pool.map(race, bodies), strict=True) if winner]
        stored = store.get(key)
        if _creates_twice(store, f"{key}-alone"):
            raise _refused(place, "a create over an existing object succeeded")
        # A winner whose answer was lost and whose repeat met its own object counts as nobody: then none says it won.
        if len(won) > 1:
            raise _refused(place, f"{len(won)} of {RACERS} racing creates of one object succeeded")
        if stored not in bodies or (won and stored != won[0]):
            raise _refused(place, "a write was not read back as it was written")
    finally:
        with suppress(StoreUnavailable):  # what stays is a few bytes that nothing reads
            store.delete(key)
            store.delete(f"{key}-alone")


def _creates_twice(store: ObjectStore, key: str) -> bool:
    try:
        store.create(key, b"second")
    except AlreadyExists:
        return False
    return True


def _refused(place: str, why: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"{place} does not keep conditional writes: {why}; nothing can be stored there safely (use a service that "
        "honours If-None-Match on PUT, such as MinIO from 2025-09 on, its fork Silo, or AWS S3)",
        "",
        "STORE_NOT_CONDITIONAL",
    )
