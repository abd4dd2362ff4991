"""Two processes that train one adapter over gloo, and what each of them saw."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import distributed
from training_kit import Bench, MemorySinks, flat, pictures

from terroir.training.engine.data.batches import Batches
from terroir.training.engine.parallel import ProcessGroup
from terroir.training.engine.ports import Checkpoint, Stopped

WORLD = 2


@dataclass(frozen=True)
class Case:
    """One run of all workers."""

    keys: Mapping[str, Any]
    pictures: int = 5
    spoil: tuple[int, int] | None = None
    """A worker whose batch of a step is not finite."""
    stop_at: int | None = None
    checkpoints: tuple[Checkpoint, ...] = ()
    """Of worker 0."""


@dataclass(frozen=True)
class Seen:
    """What one worker saw."""

    weights: npt.NDArray[np.float32] | None
    """None if it was stopped."""
    curves: Sequence[tuple[int, Mapping[str, float]]]
    checkpoints: Sequence[Checkpoint]
    lines: Sequence[str]
    skipped: int = 0
    stopped: int | None = None


@dataclass
class _Spoilt:
    """Makes one worker's batch of one step not finite, as a broken picture would."""

    place: tuple[int, int] | None
    make: Any = field(default=Batches.make)

    def __call__(self, batches: Batches, step: int, part: int, rank: int = 0, world: int = 1) -> Any:
        batch = self.make(batches, step, part, rank, world)
        return replace(batch, target=batch.target * np.nan) if (rank, step) == self.place else batch


def run_case(bench: Bench, case: Case, collective: ProcessGroup | None = None) -> Seen:
    """Train one case in this process, alone or as one of the workers."""
    sinks = MemorySinks(list(case.checkpoints), stop_at=case.stop_at)
    if collective is not None and collective.rank > 0:
        sinks = MemorySinks(stop_at=0)  # nobody must ask it
    spoilt = _Spoilt(case.spoil)
    make, Batches.make = Batches.make, lambda self, *place: spoilt(self, *place)
    try:
        result = bench.run(sinks, pictures(case.pictures), collective=collective, **case.keys)
    except Stopped as stopped:
        return Seen(None, sinks.curves, sinks.checkpoints, sinks.lines, stopped=stopped.step)
    finally:
        Batches.make = make
    return Seen(flat(result.adapter), sinks.curves, sinks.checkpoints, sinks.lines, result.skipped_batches)


def run_together(base: Path, cases: Sequence[Case], work: Path) -> list[list[Seen]]:
    """Every case by both workers: what worker 0 saw of each case, then worker 1."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(rank, base, cases, work)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return [pickle.loads((work / f"{rank}.pickle").read_bytes()) for rank in range(WORLD)]


def _work(rank: int, base: Path, cases: Sequence[Case], work: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{work}/store", rank=rank, world_size=WORLD)
    try:
        bench, collective = Bench(base), ProcessGroup("cpu")
        seen = [run_case(bench, case, collective) for case in cases]
        (work / f"{rank}.pickle").write_bytes(pickle.dumps(seen))
    finally:
        distributed.destroy_process_group()
