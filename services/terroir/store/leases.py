"""Who does a long step: one process at a time, and another one soon after that one died."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import structlog

from terroir.common.clock import Clock
from terroir.store.errors import AlreadyExists, NotFound, StoreError
from terroir.store.interface import ObjectStore

LEASE_SECONDS: Final = 20.0
"""A holder that was silent for as long is dead."""
_RENEW_SECONDS: Final = 5.0
_log = structlog.get_logger(__name__)


class Leases:
    """Numbered claims below a key, each create-only, so that of racing processes one wins. Safe for threads.

    A lease keeps work from being done twice at once; that doing it twice is harmless is the step's own affair, as a
    holder that was only slow may come back.
    """

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._owner = uuid.uuid4().hex

    @contextmanager
    def held(self, key: str) -> Iterator[bool]:
        """Whether this process has the lease for the block; renewed meanwhile, given back after it."""
        number = self._take(key)
        if number is None:
            yield False
            return
        done = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(key, number, done), name="lease", daemon=True)
        renewing.start()
        try:
            yield True
        finally:
            done.set()
            renewing.join()
            self._say(key, number, over=True)

    def forget(self, key: str) -> None:
        """Remove what past leases left, once the work is done for good and whoever comes later sees that it is."""
        for old in list(self._store.list(key)):
            self._store.delete(old)

    def _take(self, key: str) -> int | None:
        number = 1
        while True:
            try:
                self._store.create(f"{key}/{number}", self._line(over=False))
            except AlreadyExists:
                if not self._free(key, number):
                    return None
                number += 1
            else:
                return number

    def _free(self, key: str, number: int) -> bool:
        try:
            told = json.loads(self._store.get(f"{key}/{number}.alive"))
        except (NotFound, ValueError):
            told = json.loads(self._store.get(f"{key}/{number}"))
        silent = (self._clock.now() - datetime.fromisoformat(told["time"])).total_seconds()
        return bool(told["over"]) or silent > LEASE_SECONDS

    def _renew(self, key: str, number: int, done: threading.Event) -> None:
        while not done.wait(_RENEW_SECONDS):
            self._say(key, number, over=False)

    def _say(self, key: str, number: int, *, over: bool) -> None:
        try:
            self._store.put(f"{key}/{number}.alive", self._line(over=over))
        except StoreError as error:  # the lease runs out, and the step is repeated by whoever comes next
            _log.warning("lease_not_renewed", key=key, reason=error.reason)

    def _line(self, *, over: bool) -> bytes:
        return json.dumps({"owner": self._owner, "time": self._clock.now().isoformat(), "over": over}).encode()
