"""A registry as a process of its own over a real diffusers pipeline."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir._proto.registry.v1 import registry_pb2_grpc
from terroir.common.grpc_client import channel
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import to_kohya


@dataclass
class Process:
    """A registry process."""

    running: subprocess.Popen[bytes]
    api: registry_pb2_grpc.RegistryServiceStub


@contextmanager
def registry_process(
    data_dir: Path, sources: dict[str, str], settings: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Start the service as `terroir up` does and wait for its announcement; kills what still runs at the end."""
    announce = data_dir.parent / "announce.json"
    announce.unlink(missing_ok=True)
    running = subprocess.Popen(
        [sys.executable, "-m", "terroir.registry.main"],
        env={**environment(data_dir, sources, announce), **(settings or {})},
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


def environment(data_dir: Path, sources: dict[str, str], announce: Path | None = None) -> dict[str, str]:
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
