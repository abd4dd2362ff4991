"""Everything that a run needs before its first step: the base with adapter layers, the data, the state to change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from terroir.training.engine.adapters.layers import inject, plan
from terroir.training.engine.adapters.quantization import ensure_quantizable
from terroir.training.engine.data.batches import Batches
from terroir.training.engine.data.dataset import Encoded, check, data_digest, encode
from terroir.training.engine.data.order import total_steps
from terroir.training.engine.ema import Average
from terroir.training.engine.families.interface import Family
from terroir.training.engine.families.loading import load_family
from terroir.training.engine.families.placing import make_room, ready_to_train
from terroir.training.engine.identity import facts
from terroir.training.engine.meter import Meter
from terroir.training.engine.optimizers import build_optimizer
from terroir.training.engine.ports import ArrayCache, Collective, Pictures, Sinks, Stopped, TrainRun
from terroir.training.engine.precision import Precision
from terroir.training.engine.state import RunState


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train or to be resumed."""

    family: Family
    batches: Batches
    state: RunState
    total_steps: int
    facts: dict[str, Any]
    """What a checkpoint must agree with."""
    description: str
    """Of the data, for the log."""


def prepare(
    run: TrainRun,
    data: Pictures,
    regularisation: Pictures,
    cache: ArrayCache,
    collective: Collective,
    sinks: Sinks,
    meter: Meter,
) -> Prepared:
    """Load, check and encode; what is wrong with data, base or configuration shows before anything takes time.

    Raises Stopped on request while it encodes, and what `train` says of data, base and configuration.
    """
    meter.phase("preparing")
    config = run.config
    ensure_quantizable(config.base_quantization, run.device)
    check(run, data, regularisation)
    family = load_family(run.base_dir, config, run.device)
    targets = plan(family, config, run.start)
    meter.phase("caching")
    on_encoded = _on_encoded(sinks, meter)
    encoded = _encode_together(collective, lambda: encode(run, family, data, regularisation, cache, on_encoded))
    make_room(family, config, run.device)
    layers = inject(family, targets, config, run.start)
    ready_to_train(family, config)
    order = encoded.order(config)
    steps = total_steps(config, order)
    return Prepared(
        family=family,
        batches=Batches(encoded, order, family.schedule, config, run.device),
        state=RunState(
            layers,
            build_optimizer(config, layers.trained),
            Precision(config.mixed_precision, run.device),
            None if config.ema_decay is None else Average(layers.weights, config.ema_decay),
        ),
        total_steps=steps,
        facts=facts(run, data_digest(run, data, regularisation), steps),
        description=encoded.description(),
    )


def _on_encoded(sinks: Sinks, meter: Meter) -> Callable[[int, int], None]:
    def heard(done: int, total: int) -> None:
        if sinks.stop_requested():
            newest = sinks.newest()
            raise Stopped(newest.step if newest else 0)
        meter.encoded(done, total)

    return heard


def _encode_together(collective: Collective, encode_all: Callable[[], Encoded]) -> Encoded:
    """Worker 0 goes first, the others find everything in the cache if they share it.

    They raise Stopped if it fails, whose error is then the run's.
    """
    if collective.rank > 0:
        if collective.broadcast(None) is None:
            raise Stopped(0)
        return encode_all()
    done: bytes | None = None
    try:
        encoded = encode_all()
        done = b"encoded"
        return encoded
    finally:
        collective.broadcast(done)
