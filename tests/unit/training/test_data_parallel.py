"""Two workers train what one would with twice the batch: same losses, same weights, same decisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_kit import Bench
from workers import WORLD, Case, Seen, run_case, run_together

pytestmark = pytest.mark.slow  # starts processes that load torch

TOLERANCE = 1e-5
SGD: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1, "max_train_steps": 4, "batch_size": 2}
CASES = {
    "plain": Case(SGD),
    "everything": Case(
        {
            **SGD, "gradient_accumulation_steps": 2, "use_dora": True, "conv_rank": 2, "text_encoder_lr": 0.05,
            "ema_decay": 0.9, "horizontal_flip": True, "min_snr_gamma": 5, "noise_offset": 0.1,
        }
    ),
    "buckets with short batches": Case(
        {**SGD, "enable_bucket": True, "bucket_reso_steps": 8, "min_bucket_reso": 16, "max_bucket_reso": 64}
    ),
    "a bad batch of worker 1": Case(SGD, spoil=(1, 1)),
    "stopped": Case({**SGD, "save_steps": 100}, stop_at=2),
}  # fmt: skip


@pytest.fixture(scope="module")
def together(sd_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Seen]]:
    """What each worker saw of each case."""
    seen = run_together(sd_dir, list(CASES.values()), tmp_path_factory.mktemp("workers"))
    return {name: [of_rank[index] for of_rank in seen] for index, name in enumerate(CASES)}


def alone(small: Bench, case: Case) -> Seen:
    """One worker with the batch of both."""
    return run_case(small, replace(case, keys={**case.keys, "batch_size": WORLD * case.keys["batch_size"]}))


@pytest.mark.parametrize("name", ["plain", "everything", "buckets with short batches"])
def test_two_workers_train_what_one_trains_with_twice_the_batch(
    small: Bench, together: dict[str, list[Seen]], name: str
) -> None:
    one, both = alone(small, CASES[name]), together[name]
    assert one.weights is not None and both[0].weights is not None
    assert np.abs(both[0].weights - one.weights).max() <= TOLERANCE
    for (step, ours), (expected_step, theirs) in zip(both[0].curves, one.curves, strict=True):
        assert step == expected_step and ours["loss"] == pytest.approx(theirs["loss"], abs=TOLERANCE)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3)


@pytest.mark.parametrize("name", ["plain", "everything", "a bad batch of worker 1"])
def test_all_workers_end_with_the_same_bits(together: dict[str, list[Seen]], name: str) -> None:
    first, second = together[name]
    assert first.weights is not None and np.array_equal(first.weights, second.weights)


def test_a_bad_batch_of_one_worker_is_skipped_by_all(small: Bench, together: dict[str, list[Seen]]) -> None:
    seen = together["a bad batch of worker 1"]
    assert [one.skipped for one in seen] == [1, 1]
    one = alone(small, replace(CASES["plain"], spoil=(0, 1)))
    assert one.skipped == 1 and one.weights is not None and seen[0].weights is not None
    assert np.abs(seen[0].weights - one.weights).max() <= TOLERANCE


def test_worker_0_alone_reports_saves_and_is_asked_whether_to_stop(together: dict[str, list[Seen]]) -> None:
    first, second = together["plain"]
    assert len(first.curves) == 4 and [c.step for c in first.checkpoints] == [4] and first.lines
    assert not second.curves and not second.checkpoints and not second.lines


def test_a_stop_is_agreed_and_both_go_on_from_worker_0_s_checkpoint(
    sd_dir: Path, together: dict[str, list[Seen]], tmp_path: Path
) -> None:
    first, second = together["stopped"]
    assert first.stopped == second.stopped == 2 and [c.step for c in first.checkpoints] == [2]
    resumed = Case(CASES["stopped"].keys, checkpoints=tuple(first.checkpoints))
    again = run_together(sd_dir, [resumed], tmp_path)
    whole = together["plain"][0].weights
    for (seen,) in again:
        assert seen.weights is not None and whole is not None and np.array_equal(seen.weights, whole)
