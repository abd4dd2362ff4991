"""The registry as a process of its own over a real diffusers pipeline: start, kill, restart, refuse."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from terroir._proto.registry.v1 import registry_pb2 as pb
from tests.integration.registry.registry_kit import (
    adapter_bytes,
    environment,
    header,
    processor_seconds,
    registry_process,
)

pytestmark = pytest.mark.slow  # writing the pipeline takes torch and some seconds

START_LIMIT_SECONDS = 2.0
"""Of processor time: what the wall clock shows on an idle machine, and a busy one cannot spoil."""


def test_it_serves_a_real_pipeline_within_two_seconds_and_survives_a_kill(base_folder: Path, tmp_path: Path) -> None:
    data, sources = adapter_bytes(), {"tiny": str(base_folder)}
    before = processor_seconds()
    with registry_process(tmp_path / "data", sources) as process:
        base = process.api.GetBase(pb.GetBaseRequest(name="bases/tiny"), timeout=5)
        assert (base.family, base.prediction_type, base.native_resolution) == ("sd15", "v_prediction", 64)
        version = process.api.PublishVersion(iter([header(data), pb.PublishVersionRequest(chunk=data)]), timeout=20)
        assert version.coverage.matched_layers == 2

        def half() -> Iterator[pb.PublishVersionRequest]:
            yield header(data)
            yield pb.PublishVersionRequest(chunk=data[:1000])
            process.running.send_signal(signal.SIGKILL)
            process.running.wait()

        with pytest.raises(grpc.RpcError):
            process.api.PublishVersion(half(), timeout=20)
    with registry_process(tmp_path / "data", sources) as process:
        listed = process.api.ListVersions(pb.ListVersionsRequest(adapter="adapters/jiangnan"), timeout=5).versions
        assert list(listed) == [version]
        assert process.api.GetBase(pb.GetBaseRequest(name="bases/tiny"), timeout=5) == base
    assert processor_seconds() - before < 2 * START_LIMIT_SECONDS


def test_it_drains_and_ends_well_on_sigterm(base_folder: Path, tmp_path: Path) -> None:
    with registry_process(tmp_path / "data", {"tiny": str(base_folder)}) as process:
        process.running.send_signal(signal.SIGTERM)
        assert process.running.wait(10) == 0


def test_a_missing_base_folder_ends_the_start_with_one_readable_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "terroir.registry.main"],
        env=environment(tmp_path / "data", {"tiny": str(tmp_path / "none")}),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert "[BASE_FOLDER_MISSING]" in done.stderr
    assert "TERROIR_REGISTRY_BASE_SOURCES" in done.stderr
    assert "Traceback" not in done.stderr
