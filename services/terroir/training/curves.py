"""The TensorBoard curves of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tensorboardX import SummaryWriter

from terroir.common.clock import Clock
from terroir.store.interface import ObjectStore

_COPY_SECONDS: Final = 5.0


class Curves:
    """TensorBoard event files, copied to the store every few seconds."""

    def __init__(self, store: ObjectStore, prefix: str, attempt: int, clock: Clock) -> None:
        self._store = store
        self._key = f"{prefix}/tensorboard/events.out.tfevents.{attempt}.terroir"
        self._clock = clock
        self._folder = tempfile.TemporaryDirectory(prefix="terroir-curves-")
        self._writer = SummaryWriter(self._folder.name)
        self._copied = clock.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        self._copy()
        self._folder.cleanup()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """One point of each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        if self._clock.monotonic() - self._copied >= _COPY_SECONDS:
            self._writer.flush()
            self._copy()

    def _copy(self) -> None:
        for path in Path(self._folder.name).glob("events.out.tfevents.*"):
            self._store.put(self._key, path.read_bytes())
        self._copied = self._clock.monotonic()
