"""Our training engine against a plain diffusers and PEFT loop on the same base, pictures, batch, rank and threads."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.denoiser_time import DenoiserTime
from benchmarks.peers import plain_loop
from benchmarks.rows import Row
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


def rows(bench: Bench) -> Iterator[Row]:
    """Seconds a step once warm and what of them is overhead, the whole run with an empty cache, and both losses."""
    threads = len(os.sched_getaffinity(0))
    steps = bench.count(60, 6)
    config = TrainConfig.model_validate(_CONFIG | {"max_train_steps": steps, "save_steps": steps})
    folder = sorted(path.parent for path in _STYLES.glob("*/style.yaml"))[0]
    data = [Picture(p.path.name, p.path.read_bytes(), p.caption) for p in scan_folder(folder)]
    what = f"rank {config.lora_rank}, {config.resolution}×{config.resolution}, batch {config.batch_size}, fp32"
    what += f", {threads} threads"
    bench.say(f"{steps} steps by each side, {len(data)} pictures, {what}")
    with DenoiserTime() as our_denoiser:
        ours, total = _ours(bench, config, data, threads)
    bench.say(f"ours took {total:.1f} s; now the peer")
    with DenoiserTime() as their_denoiser:
        peer = plain_loop.run(BASE_DIR, config, data, threads)
    our_steps, their_steps = _warm(ours.step_seconds), _warm(peer.step_seconds)
    yield bench.row(
        f"one training step, {what}, p50", "s", statistics.median(our_steps), peer=statistics.median(their_steps),
        peer_name=_PEER,
    )  # fmt: skip
    yield bench.row(
        "share of a step outside the denoiser's forward and backward", "share",
        our_denoiser.share_outside(our_steps), peer=their_denoiser.share_outside(their_steps),
        peer_name=f"{_PEER}, VAE and text encoder in the loop",
    )  # fmt: skip
    yield bench.row(
        f"{steps} steps from files to weights, nothing cached, {what}", "s", total, peer=peer.total_seconds,
        peer_name=_PEER,
    )  # fmt: skip
    yield bench.row(
        f"mean loss of these {steps} steps (other noise, so only alike)", "MSE", statistics.mean(ours.losses),
        peer=statistics.mean(peer.losses), peer_name=_PEER,
    )  # fmt: skip


def _ours(bench: Bench, config: TrainConfig, data: Pictures, threads: int) -> tuple[_Stopwatch, float]:
    watch = _Stopwatch()
    cache = StoreArrayCache(LocalStore(bench.work / "cache"))
    since = time.perf_counter()
    run = TrainRun(config=config, base_dir=BASE_DIR, component_digests=component_digests(BASE_DIR), threads=threads)
    train(run, data, watch, cache)
    return watch, time.perf_counter() - since


def _warm(seconds: list[float]) -> list[float]:
    return seconds[_WARM_UP_STEPS:]
