"""Samples a second beside a loop with both encoders in every step, and the most that leaving them out can give."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.bench import Bench
from benchmarks.rows import Row, Target
from benchmarks.timing import in_turns
from benchmarks.training.sides import PLAIN, Place, SideRun, ours, plain
from terroir.store.local import LocalStore
from terroir.training.config import TrainConfig
from terroir.training.engine.cache import StoreArrayCache
from terroir.training.engine.ports import Pictures

_WARM_UP_STEPS: Final = 3
_OF_BOUND: Final = 0.9
_AT_LEAST: Final = 1.5


@dataclass(frozen=True)
class Comparison:
    """What both sides train, how often."""

    name: str
    """Of the base."""
    place: Place
    config: TrainConfig
    data: Pictures
    rounds: int

    def __str__(self) -> str:
        config = self.config
        precision = "fp32" if config.mixed_precision.value == "no" else config.mixed_precision.value
        where = f"{self.place.threads} threads" if self.place.device == "cpu" else self.place.device
        return (
            f"{self.name}, rank {config.lora_rank}, {config.resolution}×{config.resolution}, batch "
            f"{config.batch_size}, {precision}, {where}"
        )


def rows(bench: Bench, compared: Comparison) -> Iterator[Row]:
    """Samples/s, bound, share of overhead, whole runs with an empty cache, and both losses."""
    steps = compared.config.total_steps(len(compared.data))
    bench.say(f"{compared.rounds} rounds of {steps} steps by each side in turns, {compared}")
    mine: list[SideRun] = []
    theirs: list[SideRun] = []
    # A long run of one side, then one of the other, would compare the machine's load rather than the loops.
    totals = in_turns(
        compared.rounds,
        lambda turn: mine.append(_said(bench, "ours", turn, _ours(bench, compared, turn))),
        lambda turn: theirs.append(_said(bench, "the peer", turn, _plain(compared))),
    )
    bound = statistics.median(side.components.bound for side in theirs)
    yield bench.row(
        f"bound: (denoiser + VAE + text encoder) / denoiser, in the peer's steps, {compared}, p50", "×", bound
    )
    yield from _samples(bench, compared, bound, _step_seconds(mine), _step_seconds(theirs))
    yield bench.row(
        f"share of a step outside the denoiser's forward and backward, {compared}, p50", "share", _outside(mine),
        peer=_outside(theirs), peer_name=f"{PLAIN}, VAE and text encoder in the loop",
    )  # fmt: skip
    yield bench.row(
        f"{steps} steps from files to weights, nothing cached, {compared}, p50", "s", totals.ours, peer=totals.peer,
        peer_name=PLAIN,
    )  # fmt: skip
    yield bench.row(
        f"mean loss of these {steps} steps (other noise, so only alike), {compared}", "MSE", _loss(mine),
        peer=_loss(theirs), peer_name=PLAIN,
    )  # fmt: skip


def _samples(bench: Bench, compared: Comparison, bound: float, mine: float, theirs: float) -> Iterator[Row]:
    samples = compared.config.samples_per_step
    figure = f"samples a second once warm, everything cached, {compared}, p50"
    of_bound = Target(at_least=_OF_BOUND * bound, judged="ratio")
    yield bench.row(figure, "samples/s", samples / mine, peer=samples / theirs, peer_name=PLAIN, target=of_bound)
    allowed = bound >= _AT_LEAST
    yield bench.row(
        f"{figure}, where the bound allows {_AT_LEAST}", "samples/s", samples / mine, peer=samples / theirs,
        peer_name=PLAIN, target=Target(at_least=_AT_LEAST, judged="ratio") if allowed else None,
        reason=None if allowed else f"the bound of this run is {bound:.2f}, so {_AT_LEAST} is out of reach",
    )  # fmt: skip


def _ours(bench: Bench, compared: Comparison, turn: int) -> SideRun:
    cache = StoreArrayCache(LocalStore(bench.work / f"cache-{compared.name}-{turn}"))
    return ours(compared.place, compared.config, compared.data, cache, _WARM_UP_STEPS)


def _plain(compared: Comparison) -> SideRun:
    return plain(compared.place, compared.config, compared.data, _WARM_UP_STEPS)


def _said(bench: Bench, side: str, turn: int, done: SideRun) -> SideRun:
    bench.say(f"round {turn + 1}, {side}: {done.step_seconds:.3f} s a step")
    return done


def _step_seconds(rounds: list[SideRun]) -> float:
    return statistics.median(second for done in rounds for second in done.warm_seconds)


def _outside(rounds: list[SideRun]) -> float:
    return statistics.median(done.components.share_outside(done.warm_seconds) for done in rounds)


def _loss(rounds: list[SideRun]) -> float:
    return statistics.mean(loss for done in rounds for loss in done.losses)
