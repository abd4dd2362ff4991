"""The two sides of a training comparison: our engine, and a loop with both encoders in every step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.peers import plain_loop
from benchmarks.training.component_time import ComponentTime
from terroir.common.base_digest import component_digests
from terroir.lora.adapter import Adapter
from terroir.training.config import TrainConfig
from terroir.training.engine.ports import ArrayCache, Checkpoint, Pictures, TrainProgress, TrainRun
from terroir.training.engine.train import train

PLAIN: Final = "diffusers + PEFT loop like train_text_to_image_lora.py"


@dataclass(frozen=True)
class Place:
    """Where both sides train."""

    base: Path
    """diffusers folder."""
    threads: int
    device: str = "cpu"
    memory_fraction: float | None = None


@dataclass
class Stopwatch:
    """Sinks that note when each step ended; nothing is resumed, checkpoints are dropped."""

    marks: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def step_seconds(self) -> list[float]:
        """Between ends of steps."""
        return [later - earlier for earlier, later in zip(self.marks, self.marks[1:], strict=False)]

    def progress(self, progress: TrainProgress) -> None:
        """Nobody watches."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:  # noqa: ARG002  # the protocol's
        """Note the moment."""
        self.marks.append(time.perf_counter())
        self.losses.append(values["loss"])

    def log(self, line: str) -> None:
        """Nobody reads."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Drop it."""

    def sample(self, step: int, adapter: Adapter) -> None:
        """Draw nothing."""

    def newest(self) -> Checkpoint | None:
        """Start from nothing."""
        return None

    def stop_requested(self) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class SideRun:
    """One side's run from files to weights."""

    warm_seconds: list[float]
    """Of each step after the first few."""
    losses: list[float]
    components: ComponentTime

    @property
    def step_seconds(self) -> float:
        """Median of a warm step."""
        return statistics.median(self.warm_seconds)


def ours(place: Place, config: TrainConfig, data: Pictures, cache: ArrayCache, warm_up: int) -> SideRun:
    """Our engine, whatever the cache holds."""
    watch = Stopwatch()
    run = TrainRun(
        config=config, base_dir=place.base, component_digests=component_digests(place.base), threads=place.threads,
        device=place.device, memory_fraction=place.memory_fraction,
    )  # fmt: skip
    with ComponentTime() as taken:
        train(run, data, watch, cache)
    return SideRun(watch.step_seconds[warm_up:], watch.losses, taken)


def plain(place: Place, config: TrainConfig, data: Pictures, warm_up: int) -> SideRun:
    """The loop with encoders."""
    with ComponentTime() as taken:
        result = plain_loop.run(place.base, config, data, place.threads, place.device)
    return SideRun(result.step_seconds[warm_up:], result.losses, taken)
