"""The registry as a process of its own over a real diffusers pipeline: start, kill, restart, refuse."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir._proto.registry.v1 import registry_pb2_grpc
from terroir.common.grpc_client import channel
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import to_kohya

pytestmark = pytest.mark.slow  # writing the pipeline takes torch and some seconds

START_LIMIT_SECONDS = 2.0
"""Of processor time: what the wall clock shows on an idle machine, and a busy one cannot spoil."""


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of the tiny base's classes with random weights, written by diffusers itself."""
    from terroir.tiny.random_pipeline import build  # needs torch, which no other test of this folder does

    return build(tmp_path_factory.mktemp("pipeline") / "base")


@dataclass
class Process:
    """A registry process."""

    running: subprocess.Popen[bytes]
    api: registry_pb2_grpc.RegistryServiceStub


@contextmanager
def registry_process(data_dir: Path, sources: dict[str, str]) -> Iterator[Process]:
    """Start the service as `terroir up` does and wait for its announcement; kills what still runs at the end."""
    announce = data_dir.parent / "announce.json"
    announce.unlink(missing_ok=True)
    running = subprocess.Popen(
        [sys.executable, "-m", "terroir.registry.main"],
        env=_environment(data_dir, sources, announce),
        stderr=subprocess.DEVNULL,
    )
    try:
        while not announce.exists():
            assert running.poll() is None, "the registry ended before it listened"
            time.sleep(0.01)
        port = json.loads(announce.read_text())["ports"]["grpc"]
        with channel(f"127.0.0.1:{port}") as opened:
            yield Process(running, registry_pb2_grpc.RegistryServiceStub(opened))
    finally:
        running.kill()
        running.wait()


def _environment(data_dir: Path, sources: dict[str, str], announce: Path | None = None) -> dict[str, str]:
    settings = {"DATA_DIR": str(data_dir), "PORT": "0", "BASE_SOURCES": json.dumps(sources)}
    if announce is not None:
        settings["ANNOUNCE_PATH"] = str(announce)
    path = os.pathsep.join(sys.path)
    return {**os.environ, "PYTHONPATH": path, **{f"TERROIR_REGISTRY_{name}": value for name, value in settings.items()}}


def processor_seconds() -> float:
    """Processor time of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def adapter_bytes(seed: int = 0) -> bytes:
    """An adapter for a U-Net layer and a text-encoder layer of the real pipeline."""
    rng = np.random.default_rng(seed)
    shapes = {
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (64, 64),
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (128, 128),
    }
    modules = {
        name: LoraModule(
            rng.standard_normal((4, into), dtype=np.float32), rng.standard_normal((out, 4), dtype=np.float32), 4.0
        )
        for name, (out, into) in shapes.items()
    }
    return to_kohya(Adapter(modules), {})


def header(data: bytes) -> pb.PublishVersionRequest:
    """The first message of a publish."""
    return pb.PublishVersionRequest(
        header=pb.PublishHeader(
            adapter="adapters/jiangnan",
            base="bases/tiny",
            size_bytes=len(data),
            file_digest=hashlib.sha256(data).hexdigest(),
            request_id=str(uuid.uuid4()),
        )
    )


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
        env=_environment(tmp_path / "data", {"tiny": str(tmp_path / "none")}),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert "[BASE_FOLDER_MISSING]" in done.stderr
    assert "TERROIR_REGISTRY_BASE_SOURCES" in done.stderr
    assert "Traceback" not in done.stderr
