"""Our training engine against a plain diffusers and PEFT loop on the same base, pictures, batch, rank and threads."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.denoiser_time import DenoiserTime
from benchmarks.peers import plain_loop
from benchmarks.rows import Row
from benchmarks.timing import in_turns
from terroir.client import scan_folder
from terroir.common.base_digest import component_digests
from terroir.store.local import LocalStore
from terroir.tiny import BASE_DIR
from terroir.training.config import TrainConfig
from terroir.training.engine.cache import StoreArrayCache
from terroir.training.engine.ports import Checkpoint, Picture, Pictures, TrainProgress, TrainRun
from terroir.training.engine.train import train

_STYLES = Path(__file__).resolve().parents[2] / "examples" / "styles"
_PEER = "diffusers + PEFT loop like train_text_to_image_lora.py"
_WARM_UP_STEPS = 3
# The peer's script drops no captions.
_CONFIG = {"lora_rank": 8, "lora_alpha": 8, "batch_size": 8, "learning_rate": 1e-3, "caption_dropout": 0}


class _Stopwatch:
    """Sinks that note when each step ended; nothing is resumed, checkpoints are dropped."""

    def __init__(self) -> None:
        self.marks: list[float] = []
        self.losses: list[float] = []

    @property
    def step_seconds(self) -> list[float]:
        """Between ends of steps."""
        return [later - earlier for earlier, later in zip(self.marks, self.marks[1:], strict=False)]

    def progress(self, progress: TrainProgress) -> None:
        pass

    def scalars(self, step: int, values: Mapping[str, float]) -> None:  # noqa: ARG002  # the protocol's
        self.marks.append(time.perf_counter())
        self.losses.append(values["loss"])

    def log(self, line: str) -> None:
        pass

    def save(self, checkpoint: Checkpoint) -> None:
        pass

    def newest(self) -> Checkpoint | None:
        return None

    def stop_requested(self) -> bool:
        return False


@dataclass(frozen=True)
class _Round:
    """One side's run from files to weights."""

    warm_seconds: list[float]
    """Of each step after the first few."""
    share_outside: float
    loss: float

    @classmethod
    def of(cls, step_seconds: list[float], losses: list[float], denoiser: DenoiserTime) -> _Round:
        warm = step_seconds[_WARM_UP_STEPS:]
        return cls(warm, denoiser.share_outside(warm), statistics.mean(losses))


def rows(bench: Bench) -> Iterator[Row]:
    """Seconds a step once warm and what of them is overhead, whole runs with an empty cache, and both losses."""
    threads = len(os.sched_getaffinity(0))
    rounds, steps = bench.count(4, 2), bench.count(18, 6)
    config = TrainConfig.model_validate(_CONFIG | {"max_train_steps": steps, "save_steps": steps})
    folder = sorted(path.parent for path in _STYLES.glob("*/style.yaml"))[0]
    data = [Picture(p.path.name, p.path.read_bytes(), p.caption) for p in scan_folder(folder)]
    what = f"rank {config.lora_rank}, {config.resolution}×{config.resolution}, batch {config.batch_size}, fp32"
    what += f", {threads} threads"
    bench.say(f"{rounds} rounds of {steps} steps by each side in turns, {len(data)} pictures, {what}")
    ours: list[_Round] = []
    theirs: list[_Round] = []
    # A long run of one side, then one of the other, would compare the machine's load rather than the loops.
    totals = in_turns(
        rounds,
        lambda turn: ours.append(_ours(bench, config, data, threads, turn)),
        lambda turn: theirs.append(_theirs(bench, config, data, threads, turn)),
    )
    yield bench.row(
        f"one training step, {what}, p50", "s", _step_seconds(ours), peer=_step_seconds(theirs), peer_name=_PEER
    )
    yield bench.row(
        "share of a step outside the denoiser's forward and backward, p50", "share",
        statistics.median(r.share_outside for r in ours), peer=statistics.median(r.share_outside for r in theirs),
        peer_name=f"{_PEER}, VAE and text encoder in the loop",
    )  # fmt: skip
    yield bench.row(
        f"{steps} steps from files to weights, nothing cached, {what}, p50", "s", totals.ours, peer=totals.peer,
        peer_name=_PEER,
    )  # fmt: skip
    yield bench.row(
        f"mean loss of these {steps} steps (other noise, so only alike)", "MSE", statistics.mean(r.loss for r in ours),
        peer=statistics.mean(r.loss for r in theirs), peer_name=_PEER,
    )  # fmt: skip


def _ours(bench: Bench, config: TrainConfig, data: Pictures, threads: int, turn: int) -> _Round:
    watch = _Stopwatch()
    cache = StoreArrayCache(LocalStore(bench.work / f"cache-{turn}"))
    run = TrainRun(config=config, base_dir=BASE_DIR, component_digests=component_digests(BASE_DIR), threads=threads)
    with DenoiserTime() as denoiser:
        train(run, data, watch, cache)
    return _said(bench, "ours", turn, _Round.of(watch.step_seconds, watch.losses, denoiser))


def _theirs(bench: Bench, config: TrainConfig, data: Pictures, threads: int, turn: int) -> _Round:
    with DenoiserTime() as denoiser:
        result = plain_loop.run(BASE_DIR, config, data, threads)
    return _said(bench, "the peer", turn, _Round.of(result.step_seconds, result.losses, denoiser))


def _said(bench: Bench, side: str, turn: int, done: _Round) -> _Round:
    bench.say(f"round {turn + 1}, {side}: {statistics.median(done.warm_seconds):.3f} s a step")
    return done


def _step_seconds(rounds: list[_Round]) -> float:
    return statistics.median(second for done in rounds for second in done.warm_seconds)
