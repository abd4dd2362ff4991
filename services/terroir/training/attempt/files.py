"""What an attempt leaves in the object store beside checkpoints: its log, its progress and its curves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

from terroir.common.clock import Clock
from terroir.store.errors import AlreadyExists, NotFound
from terroir.store.interface import ObjectStore
from terroir.training.engine.ports import TrainProgress

_FLUSH_SECONDS: Final = 1.0


class AttemptLog:
    """Log lines as numbered, create-only pieces, so that readers on other machines can follow and nothing is lost."""

    def __init__(self, store: ObjectStore, prefix: str, clock: Clock) -> None:
        self._store = store
        self._prefix = f"{prefix}/log"
        self._clock = clock
        self._lines: list[str] = []
        self._next = 1
        self._flushed = clock.monotonic()

    def write(self, line: str) -> None:
        """Add a line, stamped with the time; it is stored within about a second of the next one."""
        stamp = self._clock.now().isoformat(timespec="seconds")
        self._lines += [f"{stamp} {part}" for part in line.splitlines() or [""]]
        if self._clock.monotonic() - self._flushed >= _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Store what is not stored yet, behind whatever other processes of the attempt have written."""
        while self._lines:
            try:
                self._store.create(_piece(self._prefix, self._next), "\n".join(self._lines).encode())
                self._lines = []
            except AlreadyExists:
                pass
            self._next += 1
        self._flushed = self._clock.monotonic()


class LogReader:
    """Reads an attempt's log from its beginning."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = f"{prefix}/log"
        self._next = 1

    def new_pieces(self) -> Iterator[list[str]]:
        """Lines that were stored since the last call, piece by piece."""
        while True:
            try:
                piece = self._store.get(_piece(self._prefix, self._next))
            except NotFound:
                return
            self._next += 1
            yield piece.decode("utf-8", "replace").split("\n")


def write_progress(store: ObjectStore, prefix: str, progress: TrainProgress) -> None:
    """Replace the attempt's progress: a hint for watchers, which a power cut may lose."""
    store.put(f"{prefix}/progress", json.dumps(asdict(progress)).encode())


def read_progress(store: ObjectStore, prefix: str) -> TrainProgress | None:
    """The attempt's progress, if it has reported any."""
    try:
        return TrainProgress(**json.loads(store.get(f"{prefix}/progress")))
    except (NotFound, ValueError):
        return None


def curves_key(prefix: str, attempt: int) -> str:
    """Where the event file of an attempt lies."""
    return f"{prefix}/tensorboard/events.out.tfevents.{attempt}.terroir"


def _piece(prefix: str, number: int) -> str:
    return f"{prefix}/{number:020d}"
