"""What the queue itself costs with a thousand jobs waiting: the real queue, a real store, and a Ray in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.minio_place import minio_server
from terroir.common.clock import SystemClock
from terroir.store.interface import ObjectStore
from terroir.store.local import LocalStore
from terroir.training.attempt.order import DriverOrder
from terroir.training.cluster.ray_jobs import Submission, SubmissionStatus
from terroir.training.jobs.attempts import Attempt
from terroir.training.jobs.documents import Job, Jobs
from terroir.training.jobs.queue import Queue
from terroir.training.jobs.queue_plan import QueueLimits
from terroir.training.scheduling.model import Capacity, Node, Quota, Quotas
from terroir.training.scheduling.wishes import Wish

RUNNING: Final = 8
_WRITERS: Final = 8


class EndlessRay:
    """Takes every submission and never ends one."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def session(self) -> str:
        """See RayRuntime."""
        return "benchmark"

    def submit(self, order: DriverOrder) -> None:
        """See RayRuntime."""
        self._known.add(order.submission_id)

    def look(self, attempt: Attempt) -> Submission | None:
        """See RayRuntime."""
        return Submission(SubmissionStatus.RUNNING, "") if attempt.submission_id in self._known else None

    def stop_submission(self, attempt: Attempt) -> None:
        """See RayRuntime."""

    def nodes(self) -> tuple[Node, ...]:
        """See RayRuntime."""
        return ()

    def close(self) -> None:
        """See RayRuntime."""


@dataclass
class Ticks:
    """Seconds."""

    create: float
    """For all jobs, by eight callers."""
    start: float
    """The first tick of a new process: it reads every job."""
    quiet: list[float] = field(default_factory=list)
    """Ticks in which nothing changed."""
    dispatch: float = 0.0
    """A tick that gave RUNNING jobs to Ray."""


def measure(store: ObjectStore, jobs: int, ticks: int) -> Ticks:
    """Queue jobs of three teams, then tick."""
    clock, ray = SystemClock(), EndlessRay()
    writing = Jobs(store, clock)
    began = time.perf_counter()
    with ThreadPoolExecutor(_WRITERS) as writers:
        list(writers.map(lambda number: _create(writing, number), range(jobs)))
    created = time.perf_counter() - began
    limits = QueueLimits(Capacity(RUNNING), Quotas({"research": Quota(jobs=2)}))
    found = Ticks(created, 0.0)
    first = Queue(Jobs(store, clock), ray, _order, QueueLimits(Capacity(0)), clock)
    found.start = _seconds(first)
    queue = Queue(Jobs(store, clock), ray, _order, limits, clock)
    queue.view.refresh()
    found.dispatch = _seconds(queue)
    found.quiet = [_seconds(queue) for _ in range(ticks)]
    assert len(queue.standing.waits) == jobs - RUNNING
    return found


@contextmanager
def stores(work: Path) -> Iterator[dict[str, ObjectStore | None]]:
    """A local folder, and a bucket of a real MinIO where there is one."""
    with minio_server(work / "minio") as server:
        yield {"local store": LocalStore(work / "local"), "MinIO": server.store() if server is not None else None}


def _create(jobs: Jobs, number: int) -> None:
    team = ("studio", "brands", "research")[number % 3]
    jobs.create(
        f"request-{number}", adapter=f"style-{number}", base="terroir-tiny", dataset_version="datasets/d/versions/1",
        config_yaml="", wish=Wish(team, gpus=1),
    )  # fmt: skip


def _seconds(queue: Queue) -> float:
    began = time.perf_counter()
    queue.tick()
    return time.perf_counter() - began


def _order(job: Job, attempt: Attempt) -> DriverOrder:
    return DriverOrder(job.id, attempt.number, attempt.submission_id, "", "", "", "", "", "", {}, 1, 1.0)
