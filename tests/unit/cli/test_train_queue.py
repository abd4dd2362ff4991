"""`terroir train queue`, `show` and `list` say what waits and why, over a real call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from rich.progress import Progress
from typer.testing import CliRunner

from terroir._proto.training.v1 import training_pb2 as pb
from terroir._proto.training.v1 import training_pb2_grpc
from terroir.cli.main import app
from terroir.cli.train import show_progress
from terroir.training.cluster.ray_jobs import SubmissionStatus
from terroir.training.jobs.queue_messages import queue_message
from terroir.training.jobs.queue_plan import QueueLimits
from terroir.training.messages import job_message
from terroir.training.scheduling.model import Capacity, Quota, Quotas, Rules
from terroir.training.scheduling.wishes import Wish
from tests.unit.training.test_queue import House
from tests.unit.training.test_queue_policy import HIGH, LOW


class Servicer(training_pb2_grpc.TrainingServiceServicer):
    """Answers from a queue in memory."""

    def __init__(self, house: House) -> None:
        self.house = house

    def GetQueue(self, request: pb.GetQueueRequest, context: Any) -> pb.Queue:
        return queue_message(self.house.queue.standing, request.max_waiting)

    def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.Job:
        job = self.house.jobs.get(request.name.removeprefix("jobs/"))
        return job_message(job, None, self.house.queue.standing.waits.get(job.id))


@pytest.fixture
def house() -> House:
    """Of two places one goes to a team that may have one; the other one shall be made free."""
    quotas = Quotas({"tea": Quota(gpus=8, jobs=1, weight=2)})
    limits = QueueLimits(Capacity(2), quotas, Rules(min_run_seconds=0), retry_backoff_seconds=60)
    house = House(limits=limits)
    house.create("tea", Wish("tea", gpus=0.5))
    house.create("low", LOW)
    house.queue.tick()
    house.create("more tea", Wish("tea", gpus=0.5))
    house.create("urgent", HIGH)
    house.clock.advance(180)
    house.queue.tick()
    house.queue.tick()
    return house


@pytest.fixture
def endpoints(house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        training_pb2_grpc.add_TrainingServiceServicer_to_server(Servicer(house), server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        monkeypatch.setenv("TERROIR_ENDPOINTS", f"training=127.0.0.1:{port}")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("COLUMNS", "300")
        yield
        server.stop(None)


def said(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.usefixtures("endpoints")
def test_the_queue_is_shown_with_reasons_and_shares(house: House) -> None:
    jobs = {job.wish: job for job in house.queue.view.all()}
    text = said("train", "queue")
    lines = {line.split()[1]: line for line in text.splitlines() if "jobs/" in line.partition("  ")[2][:40]}
    low, high = jobs[LOW], jobs[HIGH]
    assert f"makes room for {high.name}" in next(line for line in text.splitlines() if low.name in line)
    assert "preempting" in lines[high.name] and "high" in lines[high.name]
    (tea,) = [line for line in text.splitlines() if line.startswith("tea ")]
    assert " ".join(tea.split()).startswith("tea 1 of 1 1 0.5 of 8 ")
    assert "quota: team tea has 1 of its 1 jobs" in text and "0.5 GPU" in text
    told = json.loads(said("--json", "train", "queue", "--waiting", "1"))
    assert len(told["waiting"]) == 1 and told["total_waiting"] == 2


@pytest.mark.usefixtures("endpoints")
def test_a_job_is_shown_with_why_it_waits_and_what_became_of_its_attempts(house: House) -> None:
    (low,) = [job for job in house.queue.view.all() if job.wish == LOW]
    house.jobs.change(low.id, "lost", lambda job: replace(job, preempt_for=""))
    house.ray.submissions[f"{low.id}-1"] = SubmissionStatus.FAILED
    house.queue.tick()
    text = said("train", "show", low.name)
    assert "attempt 1 lost after 3 min: the worker died" in text
    assert "waits at position" in text and "tries again in 60 s (back off)" in text


def test_who_watches_a_job_that_waits_is_told_why() -> None:
    job = pb.Job(adapter="adapters/ink", wait=pb.JobWait(position=3, reason="WAIT_REASON_QUOTA", detail="no more"))
    with Progress() as bar:
        task = bar.add_task("ink")
        show_progress(bar, task, job)
        assert bar.tasks[0].description == "ink waits at position 3: no more (quota)"
        job.ClearField("wait")
        show_progress(bar, task, job)
        assert bar.tasks[0].description == "ink queued loss 0.0000"


def test_before_the_first_look_nothing_is_told() -> None:
    assert queue_message(House().queue.standing, 10) == pb.Queue()
