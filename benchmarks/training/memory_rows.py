"""Peak memory of both sides, each alone in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.rows import Row
from benchmarks.training.one_side import Order, measure
from benchmarks.training.sides import PLAIN


@dataclass(frozen=True)
class Trained:
    """What both sides train."""

    name: str
    """Of the base and what is trained on it."""
    base: Path
    pictures: Path
    config: Mapping[str, Any]
    threads: int


def rows(bench: Bench, trained: Trained) -> Iterator[Row]:
    """GiB of summed PSS; ours encodes first, with nothing cached."""
    mine, theirs = (
        measure(Order(side, str(trained.base), str(trained.pictures), trained.config, trained.threads)).peak_bytes
        for side in ("ours", "plain")
    )
    yield bench.row(
        f"peak memory of a training process, {trained.name}, summed PSS", "GiB", mine / 2**30, peer=theirs / 2**30,
        peer_name=PLAIN,
    )  # fmt: skip
