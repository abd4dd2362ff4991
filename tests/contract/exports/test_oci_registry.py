"""An exported image layout goes into a container registry and comes back, by the tools that the docs name."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from terroir.exports.oci import export_oci
from tests.tools.minio_server import free_port
from tests.unit.exports.test_exports import FILE, VERSION

_START_SECONDS = 20.0


@pytest.fixture
def container_registry(tool: Callable[[str], str], tmp_path: Path) -> Iterator[str]:
    """Host and port of a registry that keeps everything in memory."""
    address = f"127.0.0.1:{free_port()}"
    with (tmp_path / "registry.log").open("wb") as log:
        process = subprocess.Popen([tool("crane"), "registry", "serve", "--address", address], stdout=log, stderr=log)
    try:
        until = time.monotonic() + _START_SECONDS
        while not _answers(address):
            assert process.poll() is None, (tmp_path / "registry.log").read_text()
            assert time.monotonic() < until, "the container registry did not start in time"
            time.sleep(0.02)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("tar", [False, True], ids=["folder", "tar"])
def test_oras_pushes_a_layout_and_pulls_the_adapter_back(
    tmp_path: Path, tool: Callable[[str], str], container_registry: str, tar: bool
) -> None:
    layout = tmp_path / ("ink.tar" if tar else "ink")
    digest = export_oci(VERSION, layout, tar=tar)
    name = f"{container_registry}/styles/ink:v3"
    pushed = run(tool("oras"), "cp", "--from-oci-layout", f"{layout}:v3", "--to-plain-http", name)
    assert digest in pushed
    run(tool("oras"), "pull", "--plain-http", "-o", tmp_path / "pulled", name)
    assert (tmp_path / "pulled" / "jiangnan-v3.safetensors").read_bytes() == FILE


def test_crane_pushes_a_layout_and_pulls_the_very_same_blobs(
    tmp_path: Path, tool: Callable[[str], str], container_registry: str
) -> None:
    digest = export_oci(VERSION, tmp_path / "ink")
    name = f"{container_registry}/styles/ink:v3"
    assert run(tool("crane"), "push", tmp_path / "ink", name).strip().endswith(digest)
    run(tool("crane"), "pull", "--format", "oci", name, tmp_path / "back")
    blobs = Path("blobs", "sha256")
    there = {path.name: path.read_bytes() for path in (tmp_path / "ink" / blobs).iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "back" / blobs).iterdir()} == there
