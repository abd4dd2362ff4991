"""How long a step waits for its checkpoint, of the hundred steps between two of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from benchmarks.bench import Bench
from benchmarks.minio_place import NOT_BUILT, minio_server
from benchmarks.rows import Row, Target
from benchmarks.training.sides import Place, Stopwatch
from terroir.common.base_digest import component_digests
from terroir.common.clock import SystemClock
from terroir.store.interface import ObjectStore
from terroir.store.local import LocalStore
from terroir.training.artifacts.checkpoints import Checkpoints
from terroir.training.config import TrainConfig
from terroir.training.engine.cache import MemoryArrayCache
from terroir.training.engine.ports import Checkpoint, Pictures, TrainRun
from terroir.training.engine.train import train

RANKS: Final = (8, 64)
_BETWEEN: Final = 100
"""Steps from one checkpoint to the next."""
_TARGET: Final = Target(at_most=0.02)


@dataclass
class _Saving(Stopwatch):
    """Keeps checkpoints as a job does, and notes how long the training thread was kept."""

    checkpoints: Checkpoints | None = None
    saves: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    """Seconds of steps that follow no checkpoint."""
    _after_save: bool = True

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Note the moment."""
        super().scalars(step, values)
        if not self._after_save:
            self.steps.append(self.marks[-1] - self.marks[-2])
        self._after_save = False

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep it; the time counts from the end of the step, so that packing is part of it."""
        assert self.checkpoints is not None
        self.checkpoints.save(checkpoint, attempt=1)
        self.saves.append(time.perf_counter() - self.marks[-1])
        self.sizes.append(len(checkpoint.state))
        self._after_save = True


def rows(bench: Bench, place: Place, name: str, data: Pictures) -> Iterator[Row]:
    """Of both ranks, on a local folder and on MinIO."""
    for rank in RANKS:
        store = LocalStore(bench.work / f"checkpoints-{name}-{rank}")
        yield _row(bench, place, name, data, rank, store, "local folder")
    with minio_server(bench.work / f"minio-{name}") as server:
        for rank in RANKS:
            if server is None:
                yield bench.row(_figure(name, rank, "MinIO"), "share", None, target=_TARGET, reason=NOT_BUILT)
                continue
            yield _row(bench, place, name, data, rank, server.store(), "MinIO")


def _row(bench: Bench, place: Place, name: str, data: Pictures, rank: int, store: ObjectStore, where: str) -> Row:
    saves = bench.count(6, 2)
    config = TrainConfig.model_validate(
        {"lora_rank": rank, "batch_size": 4, "max_train_steps": 3 * saves, "save_steps": 3, "resolution": 64}
    )
    sinks = _Saving(checkpoints=Checkpoints(store, "jobs/bench", SystemClock()))
    run = TrainRun(
        config=config, base_dir=place.base, component_digests=component_digests(place.base), threads=place.threads
    )
    train(run, data, sinks, MemoryArrayCache())
    save, step = statistics.median(sinks.saves), statistics.median(sinks.steps)
    bench.say(f"{where}, rank {rank}: {save * 1e3:.1f} ms for {sinks.sizes[-1] / 2**20:.2f} MiB, {step:.3f} s a step")
    return bench.row(_figure(name, rank, where), "share", save / (save + _BETWEEN * step), target=_TARGET)


def _figure(name: str, rank: int, where: str) -> str:
    return f"cost of a checkpoint in {where} at save_steps {_BETWEEN}, {name}, rank {rank}, batch 4, p50"
