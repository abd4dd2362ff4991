"""`terroir up`: starts everything, leaves nothing behind however it ends, and says clearly why it cannot start."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from terroir.tiny import BASE_DIR
from tests.command_line import TERROIR, CommandLine, Up, base_settings, environment, left_behind, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

CONTROL = ("registry", "dataset", "training")
CONTROL_ALONE = ("--free-ports", "--no-inference")
START_LIMIT_SECONDS = 2.0
CORES = 2


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of the services for the committed base, or while there is none for a random one."""
    if (BASE_DIR / "unet" / "diffusion_pytorch_model.safetensors").exists():
        return base_settings(BASE_DIR)
    from terroir.tiny.random_pipeline import build  # needs torch

    return base_settings(build(tmp_path_factory.mktemp("pipeline") / "base"))


@pytest.fixture
def up(settings: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Starts a `terroir up` on a folder of this test; ends what the test has not ended."""
    started: list[Up] = []

    def start(*options: str, **extra: str) -> Up:
        running = Up(tmp_path / "data", settings | extra, options or ("--free-ports",)).begin()
        started.append(running)
        return running

    yield start
    for running in started:
        running.__exit__()
    for process in left_behind(tmp_path / "data"):
        process.kill()


def refusal(running: Up) -> tuple[str, str]:
    """Reason and message of a start that must fail with status 1."""
    out, _ = running.process.communicate(timeout=120)
    assert running.process.returncode == 1, out
    error = json.loads(out)["error"]
    return error["reason"], error["message"]


def starts_and_ends_well(running: Up) -> None:
    """The next start accepts the state, and leaves nothing behind."""
    ready = running.ready()
    assert set(ready["pids"]) == {*CONTROL, "inference"}
    assert running.end(signal.SIGTERM)[0] == 0
    assert left_behind(running.data_dir) == []
    assert not (running.data_dir / "endpoints.json").exists()


def test_control_services_need_less_than_two_seconds_of_two_cores(up: Callable[..., Up]) -> None:
    """By processor time: what the wall clock shows on a free machine, and a busy one cannot spoil."""
    running = up(*CONTROL_ALONE)
    pids = running.ready()["pids"]
    used = 0.0
    for name in CONTROL:
        times = psutil.Process(pids[name]).cpu_times()
        used += times.user + times.system
    assert used < START_LIMIT_SECONDS * CORES


def test_a_second_one_on_the_same_folder_is_refused_and_harms_nothing(up: Callable[..., Up]) -> None:
    first = up(*CONTROL_ALONE)
    before = first.ready()
    assert set(before["pids"]) == set(CONTROL)
    reason, message = refusal(up())
    assert reason == "DATA_DIR_IN_USE"
    assert str(first.data_dir) in message
    assert "--data-dir" in message
    assert CommandLine(first.data_dir).json("adapter", "list") == []
    assert all(psutil.pid_exists(pid) for pid in before["pids"].values())


ENDS = [
    (signal.SIGINT, "run/registry.log"),
    (signal.SIGKILL, "run/registry.json"),
    (signal.SIGINT, "run/inference.log"),
    (signal.SIGKILL, "run/inference.json"),
    (signal.SIGTERM, "run/training.log"),
    (signal.SIGHUP, "run/training.json"),
    (signal.SIGINT, "endpoints.json"),
    (signal.SIGKILL, "endpoints.json"),
]


@pytest.mark.parametrize(("number", "moment"), ENDS)
def test_it_can_be_ended_at_any_moment(up: Callable[..., Up], number: int, moment: str) -> None:
    """`moment` is a file that appears during the start; the next start waits for what the killed one left draining."""
    running = up()
    running.wait_for(moment)
    status, errors = running.end(number)
    assert status == (0 if number in (signal.SIGINT, signal.SIGTERM) else -number), errors
    assert "Traceback" not in errors
    # The lock is the last to go: an engine that was just being spawned holds it until it finds its parent gone.
    until(lambda: left_behind(running.data_dir) == [] and free_lock(running.data_dir))


def test_the_next_start_accepts_what_a_killed_one_left(up: Callable[..., Up]) -> None:
    running = up()
    running.ready()
    running.process.kill()
    starts_and_ends_well(up())  # at once: its predecessor's services still drain


def free_lock(data_dir: Path) -> bool:
    """Whether nobody holds either lock of the folder."""
    for name in ("lock", "children.lock"):
        with (data_dir / "run" / name).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


def test_a_service_that_dies_ends_the_others_and_is_named(up: Callable[..., Up]) -> None:
    running = up()
    os.kill(running.ready()["pids"]["dataset"], signal.SIGKILL)
    out, _ = running.process.communicate(timeout=90)
    assert running.process.returncode == 1
    error = json.loads(out)["error"]
    assert error["reason"] == "SERVICE_FAILED"
    assert error["message"].startswith("dataset ended with status -9")
    assert left_behind(running.data_dir) == []


@pytest.mark.parametrize("service", [*CONTROL, "inference"])
def test_a_port_in_use_is_named_and_nothing_stays(up: Callable[..., Up], service: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        wanted = {f"TERROIR_{name.upper()}_PORT": "0" for name in (*CONTROL, "inference")}
        wanted[f"TERROIR_{service.upper()}_PORT"] = str(port)
        reason, message = refusal(up("--data-dir", str(tmp_path / "data"), **wanted))
    assert reason == "PORT_IN_USE"
    assert str(port) in message
    assert f"TERROIR_{service.upper()}_PORT" in message
    assert "--free-ports" in message
    assert left_behind(tmp_path / "data") == []


@pytest.mark.parametrize("below", ["data", "data/deeper", "data/run"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, below: str) -> None:
    """A regular file in the way, which stops root too."""
    (tmp_path / "data").parent.mkdir(exist_ok=True)
    if below == "data/run":
        (tmp_path / "data").mkdir()
    (tmp_path / below.removesuffix("/deeper")).write_text("a file")
    folder = tmp_path / below.removesuffix("/run")
    done = subprocess.run(
        [*TERROIR, "up", "--data-dir", str(folder), "--free-ports"],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error [DATA_DIR_READ_ONLY] cannot write to ")
    assert "--data-dir" in done.stderr
    assert done.stderr.count("\n") == 1
    assert left_behind(folder) == []


def test_a_wrong_setting_of_a_service_is_the_reason_that_is_shown(up: Callable[..., Up]) -> None:
    reason, message = refusal(up(TERROIR_TRAINING_CPUS_PER_JBO="1"))
    assert reason == "UNKNOWN_SETTING"
    assert "did you mean TERROIR_TRAINING_CPUS_PER_JOB?" in message
