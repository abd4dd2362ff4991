"""A job with a share of a GPU trains on it within that share of its memory."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from terroir.training.attempt import worker
from terroir.training.config import TrainConfig
from terroir.training.engine.ports import TrainRun
from terroir.training.engine.surroundings import own_torch
from terroir.training.jobs.attempts import Attempt
from terroir.training.jobs.documents import Job
from terroir.training.main import driver_order
from terroir.training.scheduling.wishes import Wish
from terroir.training.settings import TrainingSettings
from tests.unit.training.attempt_kit import AttemptBench
from tests.unit.training.small_bases import small_sd


class _SeenError(Exception):
    def __init__(self, run: TrainRun) -> None:
        super().__init__(run)
        self.run = run


@pytest.mark.parametrize(
    ("gpus", "device", "fraction"), [(0.0, "cpu", None), (0.25, "cuda", 0.25), (1.0, "cuda", None), (2.0, "cuda", None)]
)
def test_the_worker_s_run_has_the_share_of_the_job(
    gpus: float, device: str, fraction: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(run: TrainRun, *_: Any) -> NoReturn:
        raise _SeenError(run)

    monkeypatch.setattr(worker, "train", train)
    with pytest.raises(_SeenError) as seen:
        AttemptBench(small_sd(tmp_path / "base"), monkeypatch, gpus=gpus).run()
    assert (seen.value.run.device, seen.value.run.memory_fraction) == (device, fraction)


@pytest.mark.parametrize(("wished", "given"), [(None, 1.0), (0.5, 0.5), (0.0, 0.0), (4.0, 4.0)])
def test_ray_is_asked_for_what_the_job_wishes_or_else_for_the_operator_s_default(
    wished: float | None, given: float
) -> None:
    job = Job("job-1", "a", "b", "d", "", "2026-01-01T00:00:00.000+00:00", wish=Wish(gpus=wished))
    assert driver_order(TrainingSettings(gpus_per_job=1), job, Attempt(1, "job-1-1", "ray")).gpus == given


@pytest.mark.parametrize(("device", "index"), [("cuda", None), ("cuda:1", 1)])
def test_torch_takes_the_share_of_the_device_that_the_run_is_on(
    device: str, index: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch refuses the name "cuda" here, with which every job with a share failed; None is the current device."""
    limited: list[tuple[float, int | None]] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: limited.append(given))
    monkeypatch.setattr(torch.random, "fork_rng", lambda _: nullcontext())
    with own_torch(TrainRun(TrainConfig(), Path(), {}, device=device, memory_fraction=0.5)):
        assert limited == [(0.5, index)]
