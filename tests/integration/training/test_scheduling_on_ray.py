"""The queue on a real Ray with room for one job: room is made for urgent ones, and a Ray that dies loses little."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import psutil
import pytest
from services_kit import CONFIG, Services, trained_services

from terroir._proto.training.v1 import training_pb2 as pb
from terroir.client.training import Training
from terroir.tiny.random_pipeline import build

pytestmark = pytest.mark.slow

SAVE_STEPS = 4
"""Of CONFIG."""
SETTINGS = {"MAX_RUNNING_JOBS": "1", "MIN_RUN_SECONDS": "0", "RETRY_BACKOFF_SECONDS": "1", "CLUSTER_GROWS": "false"}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("scheduled")
    extra = {f"TERROIR_TRAINING_{name}": value for name, value in SETTINGS.items()}
    with trained_services(folder, build(folder / "base"), extra) as services:
        yield services


def resumed_at(training: Training, job: pb.Job) -> int:
    """The step that a job's newest attempt went on from, bit-exact."""
    line = next(line for line in training.logs(job.name) if "resumed at step" in line)
    assert "bit-exact" in line
    return int(line.split("resumed at step ")[1].split()[0])


def kill_ray(services: Services) -> None:
    """Every process of the local Ray, at once."""
    head = psutil.Process(json.loads((services.data_dir / "run" / "ray.json").read_text())["pid"])
    for process in [*head.children(recursive=True), head]:
        with contextlib.suppress(psutil.NoSuchProcess):  # Ray ends workers that have nothing to do
            process.kill()


def test_a_job_makes_room_for_an_urgent_one_whose_ray_is_killed_and_ends_with_the_weights_of_one_that_ran_alone(
    services: Services,
) -> None:
    """The killed head costs the urgent job at most one interval and is nobody's failure."""
    plain = f"{CONFIG}max_train_steps: 80\npriority: low\n"
    with services.training() as training:
        low = training.create("adapters/low", plain)
        services.until_step(low.name, 3)
        high = training.create("adapters/high", f"{CONFIG}max_train_steps: 40\npriority: high\n")
        at_kill = services.until_step(high.name, 9)
        kill_ray(services)
        urgent = list(training.watch(high.name))[-1]
        ended = list(training.watch(low.name))[-1]
        undisturbed = training.create("adapters/alone", plain)
        alone = list(training.watch(undisturbed.name))[-1]
        went_on_at = resumed_at(training, ended)
        checkpoints = [checkpoint.step for checkpoint in training.checkpoints(low.name)]
        urgent_went_on_at = resumed_at(training, urgent)
    assert [job.state for job in (alone, urgent, ended)] == [pb.JOB_STATE_SUCCEEDED] * 3
    assert urgent.end_time.ToNanoseconds() < ended.end_time.ToNanoseconds()
    assert (alone.attempt.number, ended.attempt.number) == (1, 2)
    assert urgent.attempt.number >= 2
    assert urgent_went_on_at > at_kill.progress.step - SAVE_STEPS
    assert went_on_at in checkpoints and went_on_at >= 3
    with services.registry() as registry:
        digests = {registry.version(job.adapter_version).tensor_digest for job in (alone, ended)}
    assert len(digests) == 1
