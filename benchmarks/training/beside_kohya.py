"""Our engine beside kohya's sd-scripts on the same pictures and layers, each side in processes of its own, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.peers.kohya import Kohya, step_seconds
from benchmarks.rows import Row
from benchmarks.timing import in_turns
from benchmarks.training.memory_rows import Trained
from benchmarks.training.one_side import WARM_UP_STEPS, Measured, Order, measure, watched
from terroir.training.config.parser import config_from_mapping

LAYERS: Final = "attention-ff"
"""The denoiser's layers that sd-scripts adapts, unless it is told of convolutions too: our `target_modules`."""
_DIFFERS: Final = "latents cached, texts encoded in every step"


def rows(bench: Bench, kohya: Kohya, trained: Trained, rounds: int) -> Iterator[Row]:
    """Samples a second and peak memory; `trained` is on a base of SD 1.5's shape."""
    mine: list[Measured] = []
    theirs: list[Measured] = []
    config = {**trained.config, "target_modules": LAYERS}
    order = Order("ours", str(trained.base), str(trained.pictures), config, trained.threads)
    in_turns(
        rounds,
        lambda turn: mine.append(_said(bench, "ours", turn, measure(order))),
        lambda turn: theirs.append(
            _said(bench, "sd-scripts", turn, _measured(kohya, trained, bench.work / f"kohya-{turn}"))
        ),
    )
    name = f"{kohya.name}, {_DIFFERS}"
    yield bench.row(
        _speed(trained.name), "samples/s", _samples(mine), peer=_samples(theirs), peer_name=name,
    )  # fmt: skip
    yield bench.row(
        _memory(trained.name), "GiB", _peak(mine), peer=_peak(theirs), peer_name=name,
    )  # fmt: skip


def unmeasured(bench: Bench, name: str, reason: str) -> Iterator[Row]:
    """The same rows without figures."""
    yield bench.row(_speed(name), "samples/s", None, reason=reason)
    yield bench.row(_memory(name), "GiB", None, reason=reason)


def _measured(kohya: Kohya, trained: Trained, work: Path) -> Measured:
    config = config_from_mapping(trained.config).config
    command = kohya.command(trained.base, trained.pictures, config, trained.threads, work)
    printed, peak_bytes = watched(command, kohya.environment(trained.threads))
    taken = statistics.median(step_seconds(printed, config.max_train_steps or 0)[WARM_UP_STEPS:])
    return Measured(taken, config.samples_per_step / taken, None, 0, peak_bytes)


def _said(bench: Bench, side: str, turn: int, done: Measured) -> Measured:
    bench.say(f"round {turn + 1}, {side}: {done.step_seconds:.3f} s a step")
    return done


def _samples(rounds: list[Measured]) -> float:
    return statistics.median(done.samples_per_second for done in rounds)


def _peak(rounds: list[Measured]) -> float:
    return max(done.peak_bytes for done in rounds) / 2**30


def _speed(name: str) -> str:
    return f"samples a second once warm beside kohya sd-scripts, feed-forward layers too, {name}, p50"


def _memory(name: str) -> str:
    return f"peak memory of a training process beside kohya sd-scripts, {name}, summed PSS"
