"""What a tick costs by what its rows wear, in the engine's own loop, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence

import torch

from benchmarks.bench import Bench
from benchmarks.inference.engine_rig import EngineRig, job, stack_of_three
from benchmarks.rows import Row, Target
from terroir.inference.engine.pipeline.model import Model
from terroir.lora.composition import Composition
from terroir.tiny import BASE_DIR

_REQUESTS = 8
_BARE = [Composition()] * _REQUESTS
_SAME = [stack_of_three(0)] * _REQUESTS
_MIXED = [stack_of_three(index) for index in range(_REQUESTS)]
_NONE = "the same tick without adapters"
_WHAT = "tick of 8 requests with guidance (16 rows)"


def rows(bench: Bench, threads: int) -> Iterator[Row]:
    """Same stack, different stacks, and each plan forced on the different ones."""
    torch.set_num_threads(threads)
    model = Model(str(BASE_DIR))
    auto = EngineRig(model)
    forced = {plan: EngineRig(model, plan) for plan in ("slots", "concat")}
    sides = [(auto, _BARE), (auto, _SAME), (auto, _MIXED), (forced["slots"], _MIXED), (forced["concat"], _MIXED)]
    ticks = _in_turns(sides, bench.count(12, 2))
    bare, same, mixed, slots, concat = (1e3 * statistics.median(taken) for taken in ticks)
    yield bench.row(
        f"{_WHAT}, all the same 3-adapter stack, p50", "ms", same, peer=bare, peer_name=_NONE,
        target=Target(at_most=1.03, judged="ratio", cores=2),
    )  # fmt: skip
    yield bench.row(
        f"{_WHAT}, eight different 3-adapter stacks, p50", "ms", mixed, peer=bare, peer_name=_NONE,
        target=Target(at_most=1.15, judged="ratio", cores=2),
    )  # fmt: skip
    for plan, taken in (("slots", slots), ("concat", concat)):
        yield bench.row(
            f"{_WHAT}, eight different stacks, plan {plan} forced, p50", "ms", taken, peer=bare, peer_name=_NONE
        )


def _in_turns(sides: Sequence[tuple[EngineRig, Sequence[Composition]]], rounds: int) -> list[list[float]]:
    """Seconds of steady ticks by side; sides take turns, three ticks at a time."""
    taken: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for number, (rig, worn) in enumerate(sides):
            for index, composition in enumerate(worn):
                rig.loop.submit(job(index, composition, steps=5))
            rig.loop.tick()  # requests join and banks are built: that is no steady tick
            for _ in range(3):
                began = time.perf_counter()
                rig.loop.tick()
                taken[number].append(time.perf_counter() - began)
            rig.draw(())
            rig.forget()
    return taken
