"""However a `terroir up` ends while a job trains on its local Ray, no process of it stays and the job goes on later."""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest

from terroir.tiny import BASE_DIR
from tests.command_line import ROOT, CommandLine, Up, base_settings, left_behind, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STYLE = ROOT / "examples" / "styles" / "jiangnan-ink"
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


def submit(terroir: CommandLine, folder: Path, steps: int) -> str:
    """A dataset of 4 pictures and a job on it."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for path in [*sorted(STYLE.glob("*.png"))[:4], STYLE / "metadata.csv"]:
        shutil.copy(path, pictures)
    (folder / "ink.yaml").write_text(CONFIG.format(steps=steps))
    terroir.run("dataset", "create", "ink", "--rights", "drawn by this project")
    terroir.run("dataset", "import", "ink", str(pictures))
    terroir.run("dataset", "freeze", "ink")
    job = terroir.json("train", "submit", str(folder / "ink.yaml"), "--adapter", "ink", "--no-watch")
    return str(job["name"])


def ray_processes(data_dir: Path) -> bool:
    """Whether a Ray of this folder runs."""
    return any("ray" in " ".join(process.cmdline()) for process in left_behind(data_dir))


def test_no_ray_stays_and_the_job_is_finished_by_the_next_start(settings: dict[str, str], tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    terroir = CommandLine(data_dir)
    with Up(data_dir, settings) as running:
        running.ready()
        job = submit(terroir, tmp_path, steps=20)
        until(lambda: int(terroir.json("train", "show", job).get("progress", {}).get("step", 0)) >= 4, 400, 1.0)
        assert ray_processes(data_dir)
        running.end(signal.SIGKILL)
        until(lambda: left_behind(data_dir) == [], 60)
    with Up(data_dir, settings) as running:
        running.ready()
        terroir.run("train", "watch", job)
        assert terroir.json("train", "show", job)["state"] == "JOB_STATE_SUCCEEDED"
        assert ray_processes(data_dir)
        assert running.end(signal.SIGINT)[0] == 0
        assert left_behind(data_dir) == []


def test_a_killed_training_service_leaves_no_ray(settings: dict[str, str], tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with Up(data_dir, settings) as running:
        training = running.ready()["pids"]["training"]
        job = submit(CommandLine(data_dir), tmp_path, steps=2000)
        # Submitted to Ray; its worker may take minutes on a busy machine.
        shown = partial(CommandLine(data_dir).json, "train", "show", job)
        until(lambda: shown().get("attempt", {}).get("submission_id"), 200, 1.0)
        assert ray_processes(data_dir)
        os.kill(training, signal.SIGKILL)
        running.process.communicate(timeout=90)
        assert running.process.returncode == 1
        assert left_behind(data_dir) == []


def test_an_end_while_ray_starts_leaves_none_of_it(settings: dict[str, str], tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with Up(data_dir, settings) as running:
        running.ready()
        submit(CommandLine(data_dir), tmp_path, steps=2000)
        running.wait_for("run/ray.json")
        assert running.end(signal.SIGTERM)[0] == 0
        assert left_behind(data_dir) == []
