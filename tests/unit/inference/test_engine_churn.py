"""Random joins and leaves, many: the base stays bit-identical and memory stays as it was."""

from __future__ import annotations

import gc
import os
import random
from pathlib import Path

import psutil
import pytest

from terroir.inference.engine.heap import give_back
from terroir.inference.engine.messages import Failed, Finished
from terroir.inference.engine.pipeline.model import Model
from terroir.lora.adapter import Adapter
from tests.unit.inference.drawing_kit import Studio, make_job, random_adapter, weights_digest

JOINS = int(os.environ.get("TERROIR_SOAK_CHURN", "24"))
WARM_UP = 100
"""After so many joins the allocator has what it needs; with fewer in all, growth says nothing."""
MOST_GROWTH_BYTES = 20 << 20
STYLES = 5


@pytest.mark.slow
def test_random_joins_and_leaves_leave_the_base_and_memory_as_they_were(base_dir: Path) -> None:
    model, chance = Model(str(base_dir), device="cpu"), random.Random(11)
    adapters = [random_adapter(model, seed, strength=0.05) for seed in range(STYLES)]
    studio = Studio(model, merged_budget_bytes=8 << 20)
    before, identities = weights_digest(model), {name: id(p) for name, p in model.unet.named_parameters()}
    churn(studio, adapters, chance, min(WARM_UP, JOINS))
    gc.collect()
    give_back()  # as the engine does when it is idle: holes in the heap are no leak
    resident = psutil.Process().memory_info().rss
    finished = churn(studio, adapters, chance, JOINS)
    gc.collect()
    give_back()  # as the engine does when it is idle: holes in the heap are no leak
    grown = psutil.Process().memory_info().rss - resident
    assert finished >= JOINS // 3, "most requests draw to their end"
    assert weights_digest(model) == before
    assert {name: id(p) for name, p in model.unet.named_parameters()} == identities
    assert studio.stacks.pinned == 0 and studio.stacks.used_bytes <= 8 << 20
    if JOINS > WARM_UP:
        assert grown <= MOST_GROWTH_BYTES, f"{grown / 2**20:.1f} MiB more after {JOINS} joins"


def churn(studio: Studio, adapters: list[Adapter], chance: random.Random, joins: int) -> int:
    """So many requests in random stacks join, a quarter is cancelled on the way; how many finished."""
    finished = 0
    for number in range(joins):
        worn = {
            f"style-{seed}": (adapters[seed], chance.uniform(-1, 1), chance.choice((0.0, 0.5)))
            for seed in chance.sample(range(STYLES), chance.randint(0, 3))
        }
        width = chance.choice((32, 32, 32, 64))
        studio.submit(make_job(f"job-{number}", worn, steps=chance.randint(1, 6), width=width))
        if chance.random() < 0.25:
            studio.loop.cancel(f"job-{chance.randint(max(0, number - 5), number)}")
        studio.tick()
        finished += count_finished(studio)
    studio.work_off()
    return finished + count_finished(studio)


def count_finished(studio: Studio) -> int:
    """Since the last call; AssertionError if one failed."""
    assert not [event for event in studio.events if isinstance(event, Failed)]
    finished = sum(isinstance(event, Finished) for event in studio.events)
    studio.events.clear()
    return finished
