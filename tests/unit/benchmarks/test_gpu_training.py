"""`make bench-gpu AREA=training`'s own code, on tiny shapes and without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.bench import Bench
from benchmarks.gpu import training
from benchmarks.gpu.base import build_small
from benchmarks.training.one_side import Measured, Order, SideFailed, run
from terroir.training.config.profiles import PROFILES
from tests.unit.benchmarks.bench_kit import MACHINE


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench("gpu-training", tmp_path, MACHINE, "a command", quick=True, say=lambda _line: None)


def in_this_process(order: Order) -> Measured:
    """Without the seconds that a process of its own takes to import torch."""
    return run(order)


def failing(side: str) -> Callable[[Order], Measured]:
    def measure(order: Order) -> Measured:
        if order.side == side:
            raise SideFailed("memory ran out")
        return Measured(2.0, 0.5, None, 0, peak_bytes=2**30)

    return measure


def test_every_profile_for_a_gpu_has_a_card() -> None:
    assert {card.profile for card in training.CARDS} == {name for name in PROFILES if name.startswith("gpu-")}


@pytest.mark.slow
def test_both_sides_train_by_each_profile(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "measure", in_this_process)
    base = build_small(tmp_path / "base")
    speeds = [row for row in training.rows(bench, base, training.Scale.small()) if row.unit == "samples/s"]
    assert len(speeds) == len(training.CARDS)
    assert all(row.ours and row.peer for row in speeds)
    assert all(row.met is None and row.reason for row in speeds)


def test_a_profile_that_does_not_fit_its_card_is_a_row_with_the_reason(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "measure", failing("ours"))
    found = list(training.rows(bench, tmp_path, training.Scale.small()))
    assert [(row.ours, row.reason) for row in found] == [(None, "memory ran out")] * len(found)


def test_a_peer_that_does_not_fit_leaves_our_figure(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "measure", failing("plain"))
    found = list(training.rows(bench, tmp_path, training.Scale.small()))
    assert [row.ours for row in found] == [0.5, 1.0] * len(training.CARDS)
    assert all(row.peer is None and row.reason == "the peer has no figure: memory ran out" for row in found)


def test_without_a_gpu_the_same_figures_have_a_reason(bench: Bench) -> None:
    found = list(training.unmeasured(bench))
    assert len(found) == 2 * len(training.CARDS)
    assert all(row.ours is None and row.met is None and row.reason == training.NO_GPU for row in found)
