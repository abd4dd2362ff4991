"""Several workers of one job, joined by Ray Train on a real Ray.

TERROIR_SOAK_GROUP_KILLS=1 also kills a worker, which starts the group again; the soak does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest
from services_kit import CONFIG, Services, trained_services
from tensorboardX.proto.event_pb2 import Event

from terroir._proto.training.v1 import training_pb2 as pb
from terroir.tiny.random_pipeline import build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = 10
KILLS = int(os.environ.get("TERROIR_SOAK_GROUP_KILLS", "0"))


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("group")
    extra = {"TERROIR_TRAINING_RETRY_BACKOFF_SECONDS": "1"}
    with trained_services(folder, build(folder / "base"), extra) as services:
        yield services


def test_two_workers_follow_the_losses_of_one_with_twice_the_batch(services: Services) -> None:
    """Where one is killed: the first attempt up to then, the second from the checkpoint of step 4."""
    config = CONFIG.replace("batch_size: 2\n", "") + f"optimizer: sgd\nmax_train_steps: {STEPS}\n"
    with services.training() as training:
        group = training.create("adapters/group", f"{config}num_workers: 2\nbatch_size: 1\n").name
        first = services.until_step(group, 5).attempt.worker_pid
        workers = [p for p in psutil.Process(first).parent().children() if "RayTrainWorker" in p.name()]
        (other,) = [process for process in workers if process.pid != first]
        if KILLS:
            other.kill()
        lone = training.create("adapters/lone", f"{config}num_workers: 1\nbatch_size: 2\n").name
        ended = [list(training.watch(name))[-1] for name in (group, lone)]
        lines = list(training.logs(group))
    assert [job.state for job in ended] == [pb.JOB_STATE_SUCCEEDED] * 2, (ended, lines)
    assert ended[0].attempt.number == 1 + KILLS
    assert any("resumed at step" in line and "bit-exact" in line for line in lines) == bool(KILLS)
    alone, together = _losses(services, lone, 1), {}
    for attempt in range(1, 2 + KILLS):
        together |= _losses(services, group, attempt)
    assert list(alone) == list(range(1, STEPS + 1))
    assert together == pytest.approx(alone, abs=1e-5)


def _losses(services: Services, job: str, attempt: int) -> dict[int, float]:
    """By step, from the event file: a record is 8 bytes of length, 4 of checksum, the event, and 4 of checksum."""
    (file,) = (services.data_dir / job / "attempts" / str(attempt) / "tensorboard").iterdir()
    data = file.read_bytes()
    found: dict[int, float] = {}
    while data:
        end = 12 + int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12:end])
        for value in event.summary.value:
            if value.tag == "loss":
                found[event.step] = value.simple_value
        data = data[end + 4 :]
    return found
