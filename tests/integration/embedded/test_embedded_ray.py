"""However a `terroir up` ends while a job trains on its local Ray, no process of it stays and the job goes on later."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from terroir._proto.training.v1 import training_pb2 as pb
from terroir.tiny import BASE_DIR
from tests.command_line import Up, base_settings, client_of, left_behind, submit, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OPTIONS = ("--free-ports", "--no-inference")
"""How an engine ends is told in test_terroir_up."""
CONFIG = """
dataset: datasets/ink
lora_rank: 4
batch_size: 4
max_train_steps: {steps}
save_steps: 4
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of the services for the committed base, or while there is none for a random one."""
    if (BASE_DIR / "unet" / "diffusion_pytorch_model.safetensors").exists():
        return base_settings(BASE_DIR)
    from terroir.tiny.random_pipeline import build  # needs torch

    return base_settings(build(tmp_path_factory.mktemp("pipeline") / "base"))


def ray_processes(data_dir: Path) -> bool:
    """Whether a Ray of this folder runs."""
    return any("ray" in " ".join(process.cmdline()) for process in left_behind(data_dir))


def test_no_ray_stays_and_the_job_is_finished_by_the_next_start(settings: dict[str, str], tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with Up(data_dir, settings, OPTIONS) as running:
        assert set(running.ready()["pids"]) == {"dataset", "registry", "training"}
        with client_of(data_dir) as client:
            name = submit(client, tmp_path / "pictures", CONFIG.format(steps=20))
            for job in client.training.watch(name):
                if job.progress.step >= 4:
                    break
            assert job.state == pb.JOB_STATE_RUNNING
        assert ray_processes(data_dir)
        running.end(signal.SIGKILL)
        until(lambda: left_behind(data_dir) == [], 60, 0.3)
    with Up(data_dir, settings, OPTIONS) as running:
        running.ready()
        with client_of(data_dir) as client:
            assert list(client.training.watch(name))[-1].state == pb.JOB_STATE_SUCCEEDED
        assert ray_processes(data_dir)
        assert running.end(signal.SIGINT)[0] == 0
        assert left_behind(data_dir) == []


def test_a_killed_training_service_leaves_no_ray(settings: dict[str, str], tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with Up(data_dir, settings, OPTIONS) as running:
        training = running.ready()["pids"]["training"]
        with client_of(data_dir) as client:
            name = submit(client, tmp_path / "pictures", CONFIG.format(steps=2000))
            # Submitted to Ray; its worker may take minutes on a busy machine.
            until(lambda: client.training.get(name).attempt.submission_id, 200, 0.3)
        assert ray_processes(data_dir)
        os.kill(training, signal.SIGKILL)
        running.process.communicate(timeout=90)
        assert running.process.returncode == 1
        assert left_behind(data_dir) == []


def test_an_end_while_ray_starts_leaves_none_of_it(settings: dict[str, str], tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with Up(data_dir, settings, OPTIONS) as running:
        running.ready()
        with client_of(data_dir) as client:
            submit(client, tmp_path / "pictures", CONFIG.format(steps=2000))
        running.wait_for("run/ray.json")
        assert running.end(signal.SIGTERM)[0] == 0
        assert left_behind(data_dir) == []
