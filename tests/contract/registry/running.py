"""A registry server on loopback and the short calls that its tests make."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from terroir._proto.registry.v1 import region_pb2_grpc, registry_pb2_grpc
from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.common.errors import TerroirError
from terroir.common.grpc_client import channel, error_from_rpc
from terroir.common.server import Server
from terroir.registry.main import build
from terroir.registry.settings import RegistrySettings

BASE = "bases/tiny"
OTHER_BASE = "bases/other"
"""Same shapes, other weights."""
CHUNK_BYTES = 300
"""Small, so that even a tiny file takes many messages."""


@dataclass
class Caught:
    """What a refused call said."""

    code: str = ""
    reason: str = ""
    message: str = ""
    found: TerroirError | None = field(default=None, repr=False)


@contextmanager
def refused() -> Iterator[Caught]:
    """Expect the call inside to fail, and read its error as a client would."""
    caught = Caught()
    try:
        yield caught
    except grpc.RpcError as error:
        caught.found = error_from_rpc(error)
        caught.code, caught.reason = caught.found.code.value, caught.found.reason
        caught.message = str(caught.found)
    else:
        raise AssertionError("the call was not refused")


@dataclass
class Running:
    """Stubs of a running registry."""

    api: Any
    regions: Any
    data_dir: Path
    port: int = 0

    def header(self, adapter: str, data: bytes, **fields: Any) -> pb.PublishHeader:
        """A right header for the file, with fields replaced."""
        right = {
            "adapter": adapter,
            "base": BASE,
            "size_bytes": len(data),
            "file_digest": hashlib.sha256(data).hexdigest(),
            "request_id": str(uuid.uuid4()),
        }
        return pb.PublishHeader(**{**right, **fields})

    def publish(self, adapter: str, data: bytes, **fields: Any) -> pb.AdapterVersion:
        """Publish a file in small chunks."""
        messages = [pb.PublishVersionRequest(header=self.header(adapter, data, **fields))]
        messages += [
            pb.PublishVersionRequest(chunk=data[start : start + CHUNK_BYTES])
            for start in range(0, len(data), CHUNK_BYTES)
        ]
        version: pb.AdapterVersion = self.api.PublishVersion(iter(messages), timeout=30)
        return version

    def download(self, name: str, adapter_format: pb.AdapterFormat.ValueType) -> tuple[pb.DownloadHeader, bytes]:
        """Header and bytes of a download."""
        first, *rest = self.api.DownloadVersion(pb.DownloadVersionRequest(name=name, format=adapter_format), timeout=30)
        return first.header, b"".join(message.chunk for message in rest)

    def set_alias(self, alias: str, number: int, reason: str = "because", etag: str = "") -> pb.Alias:
        """Point an alias of `adapters/jiangnan` at a version."""
        request = pb.SetAliasRequest(
            adapter="adapters/jiangnan",
            alias=alias,
            version=f"adapters/jiangnan/versions/{number}",
            reason=reason,
            etag=etag,
            request_id=str(uuid.uuid4()),
        )
        moved: pb.Alias = self.api.SetAlias(request, timeout=10)
        return moved

    def adapters(self) -> list[str]:
        """Names of all listed adapters."""
        return [adapter.name for adapter in self.api.ListAdapters(pb.ListAdaptersRequest(), timeout=10).adapters]

    def damage_blob(self, digest: str) -> None:
        """Flip a byte of a stored file, as a bad disk would."""
        path = self.data_dir / "blobs" / "sha256" / digest[:2] / digest
        data = bytearray(path.read_bytes())
        data[-1] ^= 0xFF
        path.chmod(0o644)
        path.write_bytes(data)


@contextmanager
def running_registry(settings: RegistrySettings) -> Iterator[Running]:
    """Start a server on a free port in a thread of its own, stop it at the end."""
    began: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        server, stop = Server(settings, service_name="registry"), asyncio.Event()
        async with build(settings, server):
            began.set_result((await server.start(), asyncio.get_running_loop(), stop))
            await stop.wait()
            await server.stop(0)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    port, loop, stop = began.result(timeout=20)
    try:
        with channel(f"127.0.0.1:{port}") as opened:
            registry, regions = registry_pb2_grpc.RegistryServiceStub(opened), region_pb2_grpc.RegionServiceStub(opened)
            yield Running(registry, regions, settings.data_dir, port)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
