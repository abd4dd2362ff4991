"""What a thousand joins and leaves leave behind."""

from __future__ import annotations

import gc
import hashlib
import random

import psutil

from benchmarks.bench import Bench
from benchmarks.inference.engine_rig import STYLES, EngineRig, job, style
from benchmarks.rows import Row, Target
from terroir.inference.engine.heap import give_back
from terroir.inference.engine.pipeline.model import Model
from terroir.lora.composition import Composition
from terroir.tiny import BASE_DIR

_WARM_UP = 100
_MIB = 1024 * 1024


def row(bench: Bench) -> Row:
    """Growth of this process; RuntimeError if a bit of the base changed."""
    count = bench.count(1000, 30)
    rig, chance = EngineRig(Model(str(BASE_DIR))), random.Random(5)
    before = _digest(rig.model)
    _churn(rig, chance, min(_WARM_UP, count))
    _rest(rig)
    resident = psutil.Process().memory_info().rss
    _churn(rig, chance, count)
    _rest(rig)
    grown = (psutil.Process().memory_info().rss - resident) / _MIB
    if _digest(rig.model) != before:
        raise RuntimeError("the base's weights changed")
    if rig.stacks.pinned:
        raise RuntimeError(f"{rig.stacks.pinned} compositions are still held")
    return bench.row(
        f"memory growth over {count} random joins and leaves after {_WARM_UP} warm-up joins, at rest both times, "
        "base bit-identical",
        "MiB", grown, target=Target(at_most=20),
    )  # fmt: skip


def _rest(rig: EngineRig) -> None:
    """As the engine does when it is idle: banks grow with the largest batch, and holes in the heap are no leak."""
    rig.stacks.free()
    gc.collect()
    give_back()


def _churn(rig: EngineRig, chance: random.Random, joins: int) -> None:
    """Requests of one to six steps in random stacks and weights; a quarter is cancelled on the way."""
    for number in range(joins):
        worn = chance.sample(range(STYLES), chance.randint(0, 3))
        composition = Composition.of((style(seed), chance.uniform(-1, 1), chance.choice((0.0, 0.5))) for seed in worn)
        rig.loop.submit(
            job(number, composition, steps=chance.randint(1, 6), height=32, width=chance.choice((32, 32, 32, 64)))
        )
        if chance.random() < 0.25:
            rig.loop.cancel(f"job-{chance.randint(max(0, number - 5), number)}")
        rig.loop.tick()
        rig.vae.work_off()
        rig.forget()
    rig.draw(())
    rig.forget()


def _digest(model: Model) -> str:
    found = hashlib.sha256()
    for module in (model.unet, *model.text_encoders.values()):
        for name, tensor in sorted(module.state_dict().items()):
            found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()
