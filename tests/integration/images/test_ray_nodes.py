"""The trainer image as nodes of a Ray cluster, by commands as KubeRay gives, with the training service on it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.images_compose import Service
from tests.integration.images.containers import ROOT, Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STYLE = ROOT / "examples" / "styles" / "jiangnan-ink"
CONFIG = "dataset: datasets/nodes\nbase_model: terroir-tiny\nlora_rank: 2\nbatch_size: 2\nmax_train_steps: 4\nseed: 1\n"
HEAD = (
    "ray start --head --dashboard-host=0.0.0.0 --num-cpus=0 --metrics-export-port=8080 --block"
    " --dashboard-agent-listen-port=52365 --no-monitor"
)
WORKER = (
    "ray start --address=ray-head:6379 --num-cpus=2 --metrics-export-port=8080 --block"
    " --dashboard-agent-listen-port=52365"
)
HEALTHY = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:52365/api/healthz', timeout=5).status)"


class RayCluster:
    """A head that trains nothing and a worker, in the networks of the other containers."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._training = running.composition.service("training")
        self.token = secrets.token_hex(32)

    def start(self) -> None:
        """Both nodes, each well by the chart's own probe."""
        for name, command in (("ray-head", HEAD), ("ray-worker", WORKER)):
            self._run(name, {"command": ["bash", "-c", command], "networks": ["inside"], "init": False})
            self._until_well(name)

    def service(self) -> None:
        """The training service, told of this cluster instead of a Ray of its own."""
        self._running.engine.run("rm", "--force", self._training.container)
        environment = {
            **self._training.fields["environment"],
            "TERROIR_TRAINING_RAY_DASHBOARD_URL": "http://ray-head:8265",
            "TERROIR_TRAINING_RAY_AUTH_TOKEN": self.token,
        }
        fields = {**self._training.fields, "environment": environment}
        self._start(Service("training", self._training.container, fields))

    def stop(self) -> None:
        """Leave everything as it was."""
        for name in ("ray-worker", "ray-head", "training"):
            self._running.engine.run("rm", "--force", "--ignore", self._container(name))
        self._running.composition.up(self._running.engine, lambda _line: None)

    def driver_logs(self) -> str:
        """What drivers wrote on the head."""
        return self._running.engine.run(
            "exec", self._container("ray-head"), "sh", "-c", "tail -n 80 /tmp/ray/session_latest/logs/job-driver-*.log"
        )

    def _run(self, name: str, changes: dict[str, Any]) -> None:
        """A node gets what the chart gives it: settings of the training service, the cluster's token, empty folders."""
        environment = {**self._training.fields["environment"], "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        folders = [*self._training.fields["tmpfs"], "/var/lib/terroir:mode=1777"]
        fields = {**self._training.fields, "environment": environment, "ports": [], "volumes": [], "tmpfs": folders}
        self._start(Service(name, self._container(name), {**fields, **changes, "restart": "no"}))

    def _start(self, service: Service) -> None:
        composition = self._running.composition
        self._running.engine.run("run", *service.run_arguments(composition.project, composition.root))

    def _until_well(self, name: str, seconds: float = 90) -> None:
        until = time.monotonic() + seconds
        while self._running.engine.status("exec", self._container(name), "python", "-c", HEALTHY):
            assert time.monotonic() < until, self._running.engine.logs(self._container(name))
            time.sleep(1)

    def _container(self, name: str) -> str:
        return f"{self._running.composition.project}_{name}"


@pytest.fixture(scope="module")
def cluster(running: Running) -> Iterator[RayCluster]:
    made = RayCluster(running)
    try:
        made.start()
        made.service()
        yield made
    finally:
        made.stop()


def test_a_job_trains_on_a_node_of_the_cluster(cluster: RayCluster, running: Running, tmp_path: Path) -> None:
    """The worker's container has no volume in common with anything: all that it knows came by the network."""
    config = tmp_path / "nodes.yaml"
    config.write_text(CONFIG)
    running.terroir("dataset", "create", "nodes", "--trigger", "ink style", "--rights", "drawn by this project")
    running.terroir("dataset", "import", "nodes", str(STYLE))
    running.terroir("dataset", "freeze", "nodes")
    try:
        job = running.terroir("train", "submit", str(config), "--adapter", "nodes")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{cluster.driver_logs()}") from error
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    assert job["adapter_version"] == "adapters/nodes/versions/1"
    program = "import glob; print(len(glob.glob('/tmp/ray/session_*/logs/worker-*.out')))"
    assert int(running.engine.run("exec", f"{running.composition.project}_ray-worker", "python", "-c", program)) >= 1


def test_nobody_without_the_token_may_run_code_on_the_cluster(cluster: RayCluster, running: Running) -> None:
    program = """
import sys, urllib.error, urllib.request
shown = {"Authorization": sys.argv[1]} if sys.argv[1] else {}
request = urllib.request.Request("http://ray-head:8265/api/jobs/", headers=shown)
try:
    print(urllib.request.urlopen(request, timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code)"""
    asked = {shown: running.exec("registry", "python", "-c", program, shown).strip() for shown in ("", "Bearer wrong")}
    assert set(asked.values()) <= {"401", "403"}
    assert running.exec("registry", "python", "-c", program, f"Bearer {cluster.token}").strip() == "200"
