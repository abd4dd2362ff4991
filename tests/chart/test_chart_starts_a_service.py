"""The registry, started as its pod would be: with the rendered command and environment, certificates and access file.

Only addresses and folders are other ones, and objects are in a folder. What Helm's certificates are worth is seen by
gRPC here, and `helm test` runs against a service that it was written for.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from terroir._proto.registry.v1 import region_pb2
from terroir.client import Client, Endpoints
from terroir.common.credentials import CallerCredentials
from terroir.common.errors import PermissionDenied, Unavailable
from tests.chart.manifests import environment, named, pod_templates
from tests.chart.rendering import CHART, ROOT, Chart, Document
from tests.tools.minio_server import free_port

pytestmark = pytest.mark.slow
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Running:
    folder: Path
    port: int
    metrics_port: int

    def client(self, identity: str, host: str = "localhost") -> Client:
        target = f"{host}:{self.port}"
        return Client(Endpoints(target, target, target, target), CallerCredentials(self.folder / identity))


def write(documents: tuple[Document, ...], component: str, folder: Path) -> None:
    """A TLS secret as Kubernetes mounts it."""
    folder.mkdir()
    for name, value in named(documents, "Secret", f"-{component}-tls")["data"].items():
        (folder / name).write_bytes(base64.b64decode(value))


@pytest.fixture
def registry(chart: Chart, tmp_path: Path) -> Iterator[Running]:
    documents = chart.render({})
    for component in ("registry", "inference", "operator"):
        write(documents, component, tmp_path / component)
    stranger = chart.render({"logLevel": "debug"})
    write(stranger, "operator", tmp_path / "stranger")
    (tmp_path / "access.yaml").write_text(named(documents, "ConfigMap", "-access")["data"]["access.yaml"])
    (pods,) = (one for one in pod_templates(documents) if one.component == "registry")
    stated = {name: value for name, value in environment(pods.main()).items() if "_STORE" not in name}
    running = Running(tmp_path, free_port(), free_port())
    elsewhere = {
        "TERROIR_REGISTRY_HOST": "127.0.0.1", "TERROIR_REGISTRY_PORT": str(running.port),
        "TERROIR_REGISTRY_METRICS_PORT": str(running.metrics_port),
        "TERROIR_REGISTRY_TLS_DIR": str(tmp_path / "registry"),
        "TERROIR_REGISTRY_ACCESS_PATH": str(tmp_path / "access.yaml"),
        "TERROIR_REGISTRY_DATA_DIR": str(tmp_path / "data"), "TERROIR_REGISTRY_DRAIN_DELAY_SECONDS": "0",
        "TERROIR_REGISTRY_ANNOUNCE_PATH": str(tmp_path / "announced"),
        "HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "services"),
    }  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *pods.main()["command"][1:]], env={**stated, **elsewhere}, stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + _START_SECONDS
        while not (tmp_path / "announced").exists():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.1)
        yield running
    finally:
        process.terminate()
        process.wait(60)


def test_certificates_and_rules_of_the_chart_let_in_whom_they_should(registry: Running) -> None:
    with registry.client("operator") as operator:
        assert [base.name for base in operator.bases.list()] == ["bases/terroir-tiny"]
    # A service may read.
    with registry.client("inference") as service:
        assert service.bases.list()
        with pytest.raises(PermissionDenied) as refused:
            service.regions.put(region_pb2.Region(name="regions/CN"))
        assert refused.value.reason == "ROLE_MISSING"
        assert "cert:terroir-inference" in str(refused.value)
    # An operator of another release has another authority.
    with registry.client("stranger") as stranger, pytest.raises(Unavailable):
        stranger.bases.list()
    # The name dialled must be in the certificate: 127.0.0.1 is not.
    with registry.client("operator", host="127.0.0.1") as tunnel, pytest.raises(Unavailable):
        tunnel.bases.list()


def test_the_pod_of_helm_test_passes_where_services_are_ready(registry: Running, chart: Chart) -> None:
    (pods,) = (one for one in pod_templates(chart.render({})) if one.component == "test")
    _, program = pods.main()["command"], pods.main()["args"][0]
    assert program.strip() == (CHART / "files" / "smoke.py").read_text().strip()
    target = f"localhost:{registry.port}"
    stated = {
        "TERROIR_ENDPOINTS": ",".join(f"{name}={target}" for name in ("dataset", "training", "registry", "inference")),
        "TERROIR_TLS_DIR": str(registry.folder / "operator"), "METRICS_PORT": str(registry.metrics_port),
        "HOME": str(registry.folder), "PYTHONPATH": str(ROOT / "services"), "PATH": os.environ["PATH"],
    }  # fmt: skip
    assert stated.keys() - {"PYTHONPATH", "PATH", "METRICS_PORT"} == environment(pods.main()).keys()
    done = run(program, stated)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "bases: bases/terroir-tiny"
    failed = run(program, {**stated, "METRICS_PORT": str(free_port())})
    assert failed.returncode != 0
    assert "Connection refused" in failed.stderr


def run(program: str, stated: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=stated, capture_output=True, text=True, check=False, timeout=60)
