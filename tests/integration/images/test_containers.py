"""All services in containers of the images, on one network, against a real MinIO: the main job and the end."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from scripts.images_build import project_version
from scripts.images_compose import SERVICES
from terroir._proto.inference.v1 import inference_pb2
from terroir.client import Client
from terroir.client.endpoints import Endpoints
from terroir.common.errors import TerroirError
from tests.integration.images.containers import ROOT, Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STYLE = ROOT / "examples" / "styles" / "jiangnan-ink"
PROMPT = "ink style, a red teapot at sunset"
CONFIG = """
dataset: datasets/ink
base_model: terroir-tiny
lora_rank: 4
batch_size: 4
max_train_steps: 20
learning_rate: 1.0e-2
save_steps: 10
seed: 7
"""


def pixels(path: str | Path) -> np.ndarray[Any, np.dtype[np.int16]]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.int16)


def draw(running: Running, out: Path, *options: str) -> np.ndarray[Any, np.dtype[np.int16]]:
    answer = running.terroir("generate", PROMPT, "--seed", "7", "--steps", "8", "--out", str(out), *options)
    return pixels(answer["files"][0])


def logs(running: Running, service: str) -> str:
    """All that a container wrote."""
    command = [running.engine.name, "logs", running.container(service)]
    done = subprocess.run(command, env=running.engine.all_environment(), capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def job(running: Running, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """From pictures on this machine to a published style, all of it done by the containers."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "ink.yaml").write_text(CONFIG)
    running.terroir("dataset", "create", "ink", "--trigger", "ink style", "--rights", "drawn by this project")
    imported = running.terroir("dataset", "import", "ink", str(STYLE))
    assert imported["imported"] == len(list(STYLE.glob("*.png"))) > 20
    running.terroir("dataset", "freeze", "ink")
    return dict(running.terroir("train", "submit", str(folder / "ink.yaml"), "--adapter", "ink"))


def test_the_main_job_passes_through_the_containers(running: Running, job: dict[str, Any], tmp_path: Path) -> None:
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    assert job["adapter_version"] == "adapters/ink/versions/1"
    plain, styled = draw(running, tmp_path / "plain"), draw(running, tmp_path / "styled", "--adapter", "ink=1")
    assert plain.shape == styled.shape == (64, 64, 3)
    assert np.abs(plain - styled).max() > 8, "the style changes the picture"
    assert plain.std() > 10, "the picture is not flat"
    running.terroir("adapter", "alias", "ink", "production", "1", "--reason", "first one")
    running.terroir("region", "put", "CN-ZJ", "--adapter", "ink@production=0.8", "--prefix", "ink style")
    regional = draw(running, tmp_path / "regional", "--region", "CN-ZJ")
    assert np.abs(plain - regional).max() > 8


def test_jobs_run_in_a_ray_of_the_containers_own(running: Running, job: dict[str, Any]) -> None:
    assert int(job["attempt"]["worker_pid"]) > 1
    assert "local_ray_started" in logs(running, "training")


@pytest.mark.parametrize("service", SERVICES)
def test_a_running_container_is_as_restricted_as_the_file_says(running: Running, service: str) -> None:
    told = running.described(service)
    assert told["HostConfig"]["ReadonlyRootfs"] is True
    status = running.exec(service, "cat", "/proc/1/status", "/proc/self/status")
    assert {line.split()[1] for line in status.splitlines() if line.startswith("Uid:")} == {"10001"}
    assert {line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:")} == {"0" * 16}
    assert {line.split()[1] for line in status.splitlines() if line.startswith("NoNewPrivs:")} == {"1"}
    for folder, writable in (("/opt/terroir", False), ("/etc", False), ("/var/lib/terroir", True), ("/tmp", True)):
        done = running.engine.status(
            "exec", running.container(service), "sh", "-c", f"touch {folder}/x && rm {folder}/x"
        )
        assert (done == 0) is writable, folder


def test_only_loopback_of_this_machine_is_listened_on(running: Running) -> None:
    for service in SERVICES:
        bound = running.described(service)["HostConfig"]["PortBindings"].values()
        assert [one["HostIp"] for ports in bound for one in ports or ()] == ["127.0.0.1"]


def test_the_object_store_sees_nothing_but_its_own_network(running: Running) -> None:
    networks = running.described("minio")["NetworkSettings"]["Networks"]
    assert list(networks) == [f"{running.composition.project}_inside"]


def test_metrics_and_health_answer_within_the_network(running: Running) -> None:
    program = "import sys, urllib.request as r; print(r.urlopen(f'http://{sys.argv[1]}:9090/metrics').read().decode())"
    for service in SERVICES:
        told = running.exec("registry", "python", "-c", program, service)
        assert "terroir_rpc_handled_total" in told
        assert re.search(rf'terroir_build_info{{.*version="{project_version()}"}} 1\.0', told)


def test_no_key_is_told_by_a_log(running: Running, job: dict[str, Any]) -> None:
    secrets = running.composition.root / "deploy" / "compose" / "secrets"
    keys = [line.split("=", 1)[1] for line in (secrets / "store.env").read_text().splitlines()]
    assert len(keys) == 2
    for service in SERVICES:
        told = logs(running, service)
        assert not any(key in told for key in keys)


def test_a_container_that_is_told_to_end_finishes_what_it_draws(running: Running) -> None:
    """SIGTERM while pictures are drawn: the caller gets them, and the container ends with status 0 well in time."""
    drawn: list[int] = []
    failures: list[Exception] = []
    drawing = threading.Event()

    def note(event: inference_pb2.GenerateResponse) -> None:
        if event.HasField("step"):
            drawing.set()

    def call() -> None:
        with Client(Endpoints(**running.endpoints)) as client:
            try:
                request = inference_pb2.GenerateRequest(prompt="a red teapot", seeds=[1, 2, 3, 4], steps=80)
                result = client.pictures.generate(request, on_event=note)
            except Exception as error:
                failures.append(error)
            else:
                drawn.extend(picture.seed for picture in result.pictures)

    thread = threading.Thread(target=call)
    thread.start()
    assert drawing.wait(60)
    assert thread.is_alive(), "the call was over before the signal; give it more steps"
    try:
        began = time.monotonic()
        running.engine.run("stop", running.container("inference"))
        seconds = time.monotonic() - began
        thread.join(60)
        assert (sorted(drawn), failures) == ([1, 2, 3, 4], [])
        assert running.described("inference")["State"]["ExitCode"] == 0
        assert seconds < 55
        with Client(Endpoints(**running.endpoints)) as client, pytest.raises((TerroirError, grpc.RpcError)):
            client.generate("a red teapot", seeds=[1])
    finally:
        running.composition.up(running.engine, lambda _line: None)


def test_what_was_stored_outlives_every_container(running: Running, job: dict[str, Any], tmp_path: Path) -> None:
    before = draw(running, tmp_path / "before", "--adapter", "ink=1")
    running.composition.down(running.engine)
    running.composition.up(running.engine, lambda _line: None)
    assert running.terroir("adapter", "show", "ink")["name"] == job["adapter_version"]
    assert np.array_equal(draw(running, tmp_path / "after", "--adapter", "ink=1"), before)
