"""From CreateJob to the first step that WatchJob tells of, through the real services, on a Ray that already runs."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from benchmarks.bench import Bench
from benchmarks.rows import Row, Target
from terroir._proto.dataset.v1 import dataset_pb2
from terroir._proto.training.v1 import training_pb2 as pb
from terroir.client import Client, scan_folder
from terroir.client.datasets import FolderPicture
from terroir.embedded import Embedded

_TARGET: Final = Target(15, cores=2)
_READY_SECONDS: Final = 120
_MOST_SECONDS: Final = 300
"""A job that has not ended by then is cancelled."""
_CONFIG: Final = """\
dataset: datasets/{id}
lora_rank: 8
resolution: 64
batch_size: 8
max_train_steps: 8
save_steps: 8
"""


class JobFailed(Exception):
    """A job of the benchmark did not succeed; the message is its error."""


@dataclass(frozen=True)
class FirstStep:
    """Seconds since CreateJob was called, until WatchJob told so."""

    running: float
    """A worker has taken the job."""
    stepped: float
    """The first step is done."""

    def __str__(self) -> str:
        after = self.stepped - self.running
        return f"{self.running:.1f} s to running, {after:.1f} s from there to the first step"


def rows(bench: Bench, pictures: Path) -> Iterator[Row]:
    """Median and longest; Ray is warmed by a first job, and no job has seen the pictures of another."""
    taken: list[FirstStep] = []
    with Embedded(bench.work / "services") as running, Client(running.endpoints) as client:
        running.wait_until_serving("inference", _READY_SECONDS)  # its start would take the cores of the first job
        count = bench.count(5, 2)
        for number in range(count + 1):
            id_ = f"first-step-{number}"
            _make_dataset(client, id_, _unseen(pictures, bench.work / id_, number))
            since = time.monotonic()
            job = client.training.create(f"adapters/{id_}", _CONFIG.format(id=id_))
            with _cancelled_if_stuck(client, job.name):
                found = told(client.training.watch(job.name), since)
            bench.say(f"{f'job {number}' if number else 'the job that starts Ray'}: {found}")
            if number:
                taken.append(found)
    bench.say(f"p50: {_median(taken)}")
    figure = f"CreateJob to the first step that WatchJob tells of, Ray warm, tiny base, nothing cached, {count} jobs"
    yield bench.row(f"{figure}, p50", "s", _median(taken).stepped, target=_TARGET)
    yield bench.row(f"{figure}, longest", "s", max(one.stepped for one in taken), target=_TARGET)


def told(watched: Iterator[pb.Job], since: float, clock: Callable[[], float] = time.monotonic) -> FirstStep:
    """Listen until the job has ended, so that the next one finds the cores free. Raises JobFailed."""
    running = stepped = None
    job = pb.Job()
    for job in watched:
        if running is None and job.state == pb.JOB_STATE_RUNNING:
            running = clock() - since
        if stepped is None and job.progress.step:
            stepped = clock() - since
    if job.state != pb.JOB_STATE_SUCCEEDED or stepped is None:
        raise JobFailed(f"{job.name} ended as {pb.JobState.Name(job.state)}: {job.error.message or 'no step was told'}")
    return FirstStep(stepped if running is None else running, stepped)


@contextlib.contextmanager
def _cancelled_if_stuck(client: Client, job: str) -> Iterator[None]:
    """A job that waits for ever would keep the whole run."""
    timer = threading.Timer(_MOST_SECONDS, client.training.cancel, (job,))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _median(taken: list[FirstStep]) -> FirstStep:
    return FirstStep(statistics.median(one.running for one in taken), statistics.median(one.stepped for one in taken))


def _make_dataset(client: Client, id_: str, pictures: list[FolderPicture]) -> None:
    client.datasets.create(id_, dataset_pb2.Dataset(trigger_word="ink style", rights_statement="Drawn for Terroir."))
    list(client.datasets.import_pictures(f"datasets/{id_}", pictures))
    client.datasets.freeze(f"datasets/{id_}")


def _unseen(pictures: Path, folder: Path, number: int) -> list[FolderPicture]:
    """The same pictures with another corner, so that no cache has them."""
    folder.mkdir()
    changed = []
    for found in scan_folder(pictures):
        image = Image.open(found.path).convert("RGB")
        image.putpixel((0, 0), (number, 0, 0))
        image.save(folder / found.path.name)
        changed.append(FolderPicture(folder / found.path.name, found.caption))
    return changed
