"""A local training run in a process of its own that kills itself, by SIGKILL, at a place that is told to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terroir.store.local import LocalStore
from terroir.training.engine.data.batches import Batches
from terroir.training.local.output_folder import OutputFolder
from terroir.training.local.run import run_locally


@dataclass(frozen=True)
class Death:
    """Where a process dies; the default is nowhere."""

    step: int | None = None
    """Before the first pass of this optimiser step, counted over the whole run."""
    write: int | None = None
    """In the middle of this write of the process to the store, counted from 0: of a cache, a checkpoint's weights, the
    document that makes them visible, or curves."""
    share: float = 0.5
    """How much of the body is on the disk then."""
    linked: bool = False
    """Die after that write instead, before anything else happens."""
    result: int | None = None
    """In the middle of this file of the output folder, counted from 0."""


def run(config: Path, death: Death) -> None:
    """Train, and die where it is told."""
    make, write, replace = Batches.make, LocalStore._write, OutputFolder.replace
    counts = {"write": 0, "result": 0}

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def reached(kind: str, place: int | None) -> bool:
        counts[kind] += 1
        return counts[kind] - 1 == place

    def dying_make(self: Batches, step: int, *place: int) -> Any:
        if step == death.step:
            die()
        return make(self, step, *place)

    def dying_write(self: LocalStore, key: str, body: bytes, mode: Any) -> None:
        if not reached("write", death.write):
            return write(self, key, body, mode)
        if death.linked:
            write(self, key, body, mode)
        else:
            self._stage(body[: int(death.share * len(body))], durable=True)
        return die()

    def dying_replace(self: OutputFolder, name: str, data: bytes) -> Path:
        if reached("result", death.result):
            (self.path / name).with_suffix(".partial").write_bytes(data[: len(data) // 2])
            die()
        return replace(self, name, data)

    _put(Batches, "make", dying_make)
    _put(LocalStore, "_write", dying_write)
    _put(OutputFolder, "replace", dying_replace)
    run_locally(config, threads=1)


def _put(place: Any, name: str, value: Callable[..., Any]) -> None:
    setattr(place, name, value)
