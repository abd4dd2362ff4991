"""A store that waits while its place cannot be reached, for work that would be lost by giving up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import structlog

from terroir.common.clock import Clock, SystemClock
from terroir.store.errors import AlreadyExists, NotFound, StoreUnavailable
from terroir.store.interface import ObjectStore

T = TypeVar("T")

PATIENCE_SECONDS: Final = 600.0
"""Longer than a store takes to be restarted or to fail over."""
_LONGEST_PAUSE_SECONDS: Final = 5.0
_log = structlog.get_logger()


class PatientStore:
    """Another store, whose passing failures are waited out; what somebody has to change first is raised at once.

    A server must not be so patient, whose callers have deadlines of their own: this is for training, which loses an
    attempt by an error and half a minute by waiting.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Clock | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._patience_seconds = patience_seconds
        self._clock = clock or SystemClock()
        self._sleep = sleep

    def get(self, key: str) -> bytes:
        """As `ObjectStore.get`."""
        return self._waited(lambda: self._store.get(key))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """As `ObjectStore.get_range`."""
        return self._waited(lambda: self._store.get_range(key, start, length))

    def size(self, key: str) -> int:
        """As `ObjectStore.size`."""
        return self._waited(lambda: self._store.size(key))

    def exists(self, key: str) -> bool:
        """As `ObjectStore.exists`."""
        return self._waited(lambda: self._store.exists(key))

    def create(self, key: str, body: bytes) -> None:
        """As `ObjectStore.create`; a write that failed and had happened all the same counts as done."""
        asked = 0

        def write() -> None:
            nonlocal asked
            asked += 1
            try:
                self._store.create(key, body)
            except AlreadyExists:
                if asked == 1 or not self._holds(key, body):
                    raise

        self._waited(write)

    def put(self, key: str, body: bytes) -> None:
        """As `ObjectStore.put`."""
        self._waited(lambda: self._store.put(key, body))

    def delete(self, key: str) -> None:
        """As `ObjectStore.delete`."""
        self._waited(lambda: self._store.delete(key))

    def list(self, prefix: str) -> Iterator[str]:
        """As `ObjectStore.list`."""
        yield from self._waited(lambda: [*self._store.list(prefix)])

    def _holds(self, key: str, body: bytes) -> bool:
        try:
            return self._store.get(key) == body
        except NotFound:
            return False

    def _waited(self, ask: Callable[[], T]) -> T:
        begun, pause, told = self._clock.monotonic(), 0.1, False
        while True:
            try:
                answer = ask()
            except StoreUnavailable as error:
                if not error.passes or self._clock.monotonic() - begun >= self._patience_seconds:
                    raise
                if not told:
                    told = True
                    _log.warning("store_away", reason=error.reason, patience_seconds=self._patience_seconds)
                self._sleep(pause)
                pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause)
                continue
            if told:
                _log.warning("store_back", away_seconds=round(self._clock.monotonic() - begun, 1))
            return answer
