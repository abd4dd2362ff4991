"""Training by each hardware profile, held to its card's memory, beside the diffusers loop with the same keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import torch

from benchmarks.bench import Bench
from benchmarks.rows import Row
from benchmarks.training.one_side import Measured, Order, SideFailed, measure
from benchmarks.training.sides import PLAIN

_STYLE: Final = Path(__file__).resolve().parents[2] / "examples" / "styles" / "jiangnan-ink"
_GIB: Final = 2**30
NO_GPU: Final = "no GPU here (make bench-gpu AREA=training)"
"""Reason of a row that was not measured."""


@dataclass(frozen=True)
class Card:
    """A profile and what it is held to."""

    profile: str
    gib: int
    """Memory of the card that the profile is for."""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """What the profile's summary overrules for SD 1.5."""


CARDS: Final = (
    Card("gpu-12gb", 12),
    Card("gpu-24gb", 24, {"resolution": 512, "gradient_checkpointing": False}),
    Card("gpu-80gb", 80, {"resolution": 512}),
)


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    device: str
    steps: int
    keys: Mapping[str, Any]
    """Over those of the profile."""
    judged: bool

    @classmethod
    def sd15(cls) -> Self:
        """Rank 16, on the GPU."""
        return cls("cuda", 24, {"lora_rank": 16}, judged=True)

    @classmethod
    def small(cls) -> Self:
        """For a CPU."""
        small = {"lora_rank": 2, "resolution": 32, "batch_size": 1, "mixed_precision": "no"}
        return cls("cpu", 3, small, judged=False)


def unmeasured(bench: Bench) -> Iterator[Row]:
    """The same rows where there is no GPU."""
    for card in CARDS:
        for unit in ("samples/s", "GiB"):
            yield _row(bench, card, Scale.sd15(), unit, None, None, NO_GPU)


def rows(bench: Bench, base: Path, scale: Scale) -> Iterator[Row]:
    """Samples/s and peak memory of each profile; what does not fit is a row with the reason."""
    for card in CARDS:
        mine, theirs = (_measured(bench, card, _order(side, card, base, scale)) for side in ("ours", "plain"))
        reason = _reason(mine, theirs, scale)
        yield _row(bench, card, scale, "samples/s", _speed(mine), _speed(theirs), reason)
        yield _row(bench, card, scale, "GiB", _peak(mine, scale), _peak(theirs, scale), reason)


def _order(side: str, card: Card, base: Path, scale: Scale) -> Order:
    # Neither side drops captions, so that both do the same.
    steps = {"max_train_steps": scale.steps, "save_steps": scale.steps, "caption_dropout": 0}
    config = {"profile": card.profile, **card.keys, **scale.keys, **steps}
    return Order(side, str(base), str(_STYLE), config, threads=torch.get_num_threads(), device=scale.device)


def _measured(bench: Bench, card: Card, order: Order) -> Measured | str:
    """What a side reached within its card's share of this one, or why it did not."""
    if order.device != "cpu":
        total = torch.cuda.get_device_properties(0).total_memory
        if card.gib * _GIB > total * 1.02:  # a card of 80 GB shows 79 GiB of them
            return f"this card has {total / _GIB:.0f} GiB"
        order = replace(order, memory_fraction=min(1.0, card.gib * _GIB / total))
    bench.say(f"{card.profile}, {order.side}")
    try:
        return measure(order)
    except SideFailed as failed:
        return str(failed)


def _row(
    bench: Bench, card: Card, scale: Scale, unit: str, mine: float | None, theirs: float | None, reason: str | None
) -> Row:
    what = "samples a second" if unit == "samples/s" else "peak memory"
    return bench.row(
        f"{what}, SD 1.5's shape, profile {card.profile}{_overruled(card)}, {scale.device}", unit, mine, peer=theirs,
        peer_name=PLAIN, reason=reason,
    )  # fmt: skip


def _overruled(card: Card) -> str:
    return "".join(f", {key} {str(value).lower()}" for key, value in card.keys.items())


def _speed(side: Measured | str) -> float | None:
    return None if isinstance(side, str) else side.samples_per_second


def _peak(side: Measured | str, scale: Scale) -> float | None:
    if isinstance(side, str):
        return None
    return (side.peak_bytes if scale.device == "cpu" else side.device_bytes) / _GIB


def _reason(mine: Measured | str, theirs: Measured | str, scale: Scale) -> str | None:
    if isinstance(mine, str):
        return mine
    if isinstance(theirs, str):
        return f"the peer has no figure: {theirs}"
    return None if scale.judged else "tiny shapes on this machine prove the code alone"
