"""Two registry processes on one store and an inference server that follows the second; also for benchmarks."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir._proto.registry.v1 import region_pb2_grpc, registry_pb2_grpc
from terroir._proto.registry.v1 import registry_pb2 as registry_pb
from terroir.common.grpc_client import channel
from terroir.inference.settings import InferenceSettings
from tests.integration.inference.inference_server import RunningInference, running_inference
from tests.integration.registry.registry_kit import header, registry_process

_CHUNK_BYTES = 1024 * 1024


class Replica:
    """A registry process that can be killed and started again on its port."""

    def __init__(self, data_dir: Path, base: Path, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        """`settings` are environment variables, such as those of an object store."""
        self._data_dir = data_dir
        self._base = base
        self._running = ExitStack()
        self._settings = dict(settings)
        self.target = ""
        self.api: Any = None
        self.regions: Any = None

    def start(self) -> None:
        """Begin, or begin again."""
        self._running = ExitStack()
        started = registry_process(self._data_dir, {"tiny": str(self._base)}, self._settings)
        self._running.enter_context(started)
        port = json.loads((self._data_dir.parent / "announce.json").read_text())["ports"]["grpc"]
        self._settings["TERROIR_REGISTRY_PORT"] = str(port)
        self.target = f"127.0.0.1:{port}"
        opened = self._running.enter_context(channel(self.target))
        self.api, self.regions = (
            registry_pb2_grpc.RegistryServiceStub(opened),
            region_pb2_grpc.RegionServiceStub(opened),
        )

    def kill(self) -> None:
        """SIGKILL, as a lost machine."""
        self._running.close()

    def publish(self, adapter: str, data: bytes) -> str:
        """Name of the new version of `adapters/{adapter}`."""
        first = header(data)
        first.header.adapter = f"adapters/{adapter}"
        chunks = [data[start : start + _CHUNK_BYTES] for start in range(0, len(data), _CHUNK_BYTES)]
        messages = [first, *(registry_pb.PublishVersionRequest(chunk=chunk) for chunk in chunks)]
        return str(self.api.PublishVersion(iter(messages), timeout=60).name)

    def withdraw(self, version: str, reason: str) -> None:
        """Deprecate for cause."""
        self.api.DeprecateVersion(
            registry_pb.DeprecateVersionRequest(
                name=version, reason=reason, for_cause=True, request_id=str(uuid.uuid4())
            ),
            timeout=30,
        )


@dataclass
class Followed:
    """A publisher's replica, the one that inference follows, and inference."""

    publisher: Replica
    followed: Replica
    inference: RunningInference

    def resident(self) -> dict[str, pb.ResidentAdapter]:
        """By version."""
        answer = self.inference.stub.ListResidentAdapters(pb.ListResidentAdaptersRequest(), timeout=10)
        return {entry.version: entry for entry in answer.adapters}

    def watching(self) -> bool:
        """Whether inference hears of changes."""
        return bool(self.inference.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10).watching)

    def publish_until_resident(self, adapter: str, data: bytes, timeout: float = 30) -> tuple[str, float]:
        """Publish at one replica; the version, and seconds from the publish's answer until inference holds it."""
        version = self.publisher.publish(adapter, data)
        began = time.monotonic()
        while version not in self.resident():
            if time.monotonic() - began > timeout:
                raise AssertionError(f"{version} was not resident within {timeout:g} s")
            time.sleep(0.002)
        return version, time.monotonic() - began


@contextmanager
def followed_registry(
    folder: Path, base: Path, registry: Mapping[str, str] = MappingProxyType({}), **settings: Any
) -> Iterator[Followed]:
    """All three, inference serving and watching; `registry` are environment variables of both replicas."""
    publisher, followed = Replica(folder / "data", base, registry), Replica(folder / "data", base, registry)
    with ExitStack() as stack:
        for replica in (publisher, followed):
            replica.start()
            stack.callback(replica.kill)
        chosen = InferenceSettings(
            **{
                "data_dir": folder / "inference", "port": 0, "base": "tiny", "base_model": str(base),
                "registry_target": followed.target, "threads": 1, **settings,
            }
        )  # fmt: skip
        inference = stack.enter_context(running_inference(chosen))
        inference.wait_until_serving()
        rig = Followed(publisher, followed, inference)
        while not rig.watching():
            time.sleep(0.01)
        yield rig
