"""A program that tests need and that is missing is never silently left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NEEDS_A_PROGRAM = 'def test_with_a_program(tool):\n    tool("no-such-program")\n'


def run_suite(folder: Path, required: str) -> subprocess.CompletedProcess[str]:
    """A pytest run of its own over one test that needs a program nobody has."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_suite.py").write_text(NEEDS_A_PROGRAM)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-p",
        "tests.integration.cluster.conftest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERROIR_REQUIRE_TOOLS": required}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_missing_program_skips_its_tests_with_one_loud_line(tmp_path):
    result = run_suite(tmp_path, required="buf")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 skipped" in result.stdout
    assert result.stdout.count("NOT TESTED, for want of no-such-program (make tools)") == 1


def test_a_missing_program_that_is_required_fails_its_tests(tmp_path):
    result = run_suite(tmp_path, required="buf,no-such-program")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "1 failed" in result.stdout
    assert "run make tools" in result.stdout


@pytest.mark.parametrize("name", ["minio", "toxiproxy"])
@pytest.mark.parametrize("required", [True, False])
def test_so_it_is_with_the_servers_that_tests_share(
    name: str, required: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERROIR_TOOLS_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    (tmp_path / "test_server.py").write_text(f"def test_with_a_server({name}):\n    assert False\n")
    result = run_suite(tmp_path, required=name if required else "")
    if required:
        assert result.returncode == 1
        assert f"(TERROIR_REQUIRE_TOOLS={name}) and not found" in result.stdout
    else:
        assert result.stdout.count(f"NOT TESTED, for want of {name} (make tools)") == 1


@pytest.mark.parametrize("required", [True, False])
def test_so_it_is_with_the_control_plane(required: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its programs take minutes to build, so they are asked for by a name of their own: cluster."""
    monkeypatch.setenv("TERROIR_TOOLS_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    (tmp_path / "test_cluster.py").write_text(
        "def test_one(cluster):\n    assert False\n\ndef test_two(cluster):\n    assert False\n"
    )
    result = run_suite(tmp_path, required="cluster" if required else "")
    if required:
        assert result.returncode == 1
        assert "required here (TERROIR_REQUIRE_TOOLS=cluster)" in result.stdout
        assert "run make tools-cluster" in result.stdout
    else:
        assert "3 skipped" in result.stdout  # run_suite has a test of its own
        assert result.stdout.count("NOT TESTED, for want of a Kubernetes control plane (etcd, kube-apiserver") == 1
