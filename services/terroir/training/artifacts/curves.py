"""The TensorBoard curves of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from terroir.common.clock import Clock
from terroir.store.interface import ObjectStore
from terroir.training.attempt.files import curves_key

_COPY_SECONDS: Final = 5.0


class Curves:
    """TensorBoard event files, copied to the store every few seconds."""

    def __init__(self, store: ObjectStore, prefix: str, attempt: int, clock: Clock) -> None:
        self._store = store
        self._key = curves_key(prefix, attempt)
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

    def add_picture(self, step: int, name: str, picture: Image.Image) -> None:
        """A picture, shown beside the curves."""
        self._writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def _copy(self) -> None:
        for path in Path(self._folder.name).glob("events.out.tfevents.*"):
            self._store.put(self._key, path.read_bytes())
        self._copied = self._clock.monotonic()
