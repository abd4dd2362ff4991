"""Whether an adapter can be gone on from: a run trains the layers, ranks and strengths that it starts with."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

from terroir.lora.adapter import Adapter, LoraModule, Module
from terroir.training.config import TrainConfig
from terroir.training.engine.adapters.targets import Target
from terroir.training.errors import PretrainedMismatch

_SHOWN = 3
"""Layers that a message names of many."""


def check_fits(start: Adapter, targets: Sequence[Target], config: TrainConfig) -> None:
    """Raise PretrainedMismatch with every difference, `<field>: <adapter's> -> <run's>`, if there is one."""
    differences = dict(_differences(start, targets, config))
    if differences:
        told = "; ".join(f"{name}: {difference}" for name, difference in differences.items())
        raise PretrainedMismatch(
            f"the adapter of pretrained_lora differs from what the run would train ({told}); set these keys to the "
            "adapter's, or leave pretrained_lora out",
            metadata=differences,
            field="pretrained_lora",
        )


def _differences(start: Adapter, targets: Sequence[Target], config: TrainConfig) -> Iterator[tuple[str, str]]:
    wanted = {target.layer: target for target in targets}
    if others := sorted(kind for kind in start.kinds if kind != "lora"):
        yield "kind", f"{', '.join(others)} -> lora"
        return
    if extra := sorted(start.modules.keys() - wanted.keys()):
        yield "layers of the adapter alone", _names(extra)
    if missing := sorted(wanted.keys() - start.modules.keys()):
        yield "layers of the run alone", _names(missing)
    shared = [(target, start.modules[layer]) for layer, target in wanted.items() if layer in start.modules]
    if start.has_magnitudes != config.use_dora:
        yield "use_dora", f"{_yes(start.has_magnitudes)} -> {_yes(config.use_dora)}"
    small = [pair for pair in shared if not _large(pair[1])]
    large = [pair for pair in shared if _large(pair[1])]
    conv = "lora" if config.conv_rank is None else "conv"
    found: dict[str, str] = {}
    for prefix, pairs in (("lora", small), (conv, large)):
        ranks = [(module.rank, target.rank) for target, module in pairs]
        if any(theirs != ours for theirs, ours in ranks):
            found.setdefault(f"{prefix}_rank", _change(ranks))
            continue  # alpha follows the rank unless it is set
        alphas = [(module.alpha, target.canonical_alpha) for target, module in pairs]
        if not all(math.isclose(theirs, ours, rel_tol=1e-6) for theirs, ours in alphas):
            found.setdefault(f"{prefix}_alpha", _change(alphas))
    yield from found.items()


def _large(module: Module) -> bool:
    return isinstance(module, LoraModule) and module.down.ndim == 4 and max(module.down.shape[2:]) > 1


def _change(pairs: Collection[tuple[float, float]]) -> str:
    theirs, ours = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
    return f"{_values(theirs)} -> {_values(ours)}"


def _values(values: Sequence[float]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:_SHOWN])
    return f"{shown}, …" if len(values) > _SHOWN else shown


def _names(layers: Sequence[str]) -> str:
    return f"{len(layers)} ({', '.join(layers[:_SHOWN])}{', …' if len(layers) > _SHOWN else ''})"


def _yes(value: bool) -> str:
    return "true" if value else "false"
