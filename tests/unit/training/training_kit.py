"""What the training tests share: small pictures, sinks in memory, runs on a random tiny base."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from terroir.common.base_digest import component_digests
from terroir.lora.adapter import Adapter
from terroir.training.config import TrainConfig
from terroir.training.engine.cache import MemoryArrayCache
from terroir.training.engine.ports import (
    ArrayCache,
    Checkpoint,
    Collective,
    Picture,
    TrainProgress,
    TrainResult,
    TrainRun,
)
from terroir.training.engine.train import train

SMALL: Mapping[str, Any] = {
    "resolution": 32, "lora_rank": 2, "batch_size": 2, "max_train_steps": 4, "learning_rate": 1e-2, "seed": 3,
}  # fmt: skip


def png(seed: int, size: tuple[int, int] = (40, 40)) -> bytes:
    """A picture of coloured noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(count: int = 3) -> list[Picture]:
    return [Picture(f"{i}.png", png(i), f"a red house number {i}") for i in range(count)]


class Killed(Exception):
    """Stands for the end of the process."""


@dataclass
class MemorySinks:
    """Keeps everything; dies where a test says."""

    checkpoints: list[Checkpoint] = field(default_factory=list)
    progresses: list[TrainProgress] = field(default_factory=list)
    curves: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    stop_at: int | None = None

    def progress(self, progress: TrainProgress) -> None:
        self.progresses.append(progress)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.curves.append((step, values))

    def log(self, line: str) -> None:
        self.lines.append(line)

    def save(self, checkpoint: Checkpoint) -> None:
        self.checkpoints.append(checkpoint)

    def sample(self, step: int, adapter: Adapter) -> None:
        pass

    def newest(self) -> Checkpoint | None:
        return self.checkpoints[-1] if self.checkpoints else None

    def stop_requested(self) -> bool:
        return self.stop_at is not None and len(self.curves) >= self.stop_at


@dataclass
class Bench:
    """Runs the engine on one base with one shared cache."""

    base: Path
    cache: ArrayCache = field(default_factory=MemoryArrayCache)

    def run(
        self,
        sinks: MemorySinks | None = None,
        data: list[Picture] | None = None,
        start: Adapter | None = None,
        collective: Collective | None = None,
        regularisation: Sequence[Picture] = (),
        **changes: Any,
    ) -> TrainResult:
        settings = {**SMALL, **changes}
        run = TrainRun(TrainConfig(**settings), self.base, component_digests(self.base), start=start)
        pictures_of_run = pictures() if data is None else data
        return train(
            run,
            pictures_of_run,
            sinks or MemorySinks(),
            self.cache,
            regularisation=regularisation,
            collective=collective,
        )


def flat(adapter: Adapter) -> npt.NDArray[np.float32]:
    """All weights of an adapter, one after the other."""
    return np.concatenate([part.ravel() for m in adapter.modules.values() for part in m.tensors.values()])


Runner = Callable[..., TrainResult]
