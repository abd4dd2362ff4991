"""A replica killed by SIGKILL at random moments of PublishVersion: nothing half-published, a retry succeeds once."""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import grpc
import pytest

from terroir._proto.registry.v1 import registry_pb2 as pb
from tests.integration.registry.registry_kit import Process, adapter_bytes, header, registry_process
from tests.tools.minio_server import MinioServer

pytestmark = pytest.mark.slow  # each moment starts a replica anew

MOMENTS = int(os.environ.get("TERROIR_SOAK_KILLS", "2"))
"""Kills that meet a publish; those that come after its answer are not counted."""


def messages(data: bytes, request_id: str) -> Iterator[pb.PublishVersionRequest]:
    first = header(data)
    first.header.request_id = request_id
    yield first
    for at in range(0, len(data), 64 * 1024):
        yield pb.PublishVersionRequest(chunk=data[at : at + 64 * 1024])


@pytest.fixture(params=["folder", "minio"])
def store_settings(request: pytest.FixtureRequest) -> dict[str, str]:
    """Environment of a registry that keeps its objects in its folder or in a bucket."""
    if request.param == "folder":
        return {}
    server: MinioServer = request.getfixturevalue("minio")
    return server.settings("registry", server.location())


def test_a_publish_happens_once_however_often_its_replica_is_killed(
    base_folder: Path, tmp_path: Path, store_settings: dict[str, str]
) -> None:
    """Each moment publishes a version of its own: one call that meets the kill, then a retry at a fresh replica."""
    chance = random.Random(20261123)
    data_dir, sources = tmp_path / "data", {"tiny": str(base_folder)}
    with registry_process(data_dir, sources, store_settings) as process:
        began = time.monotonic()
        first = process.api.PublishVersion(messages(adapter_bytes(seed=0), str(uuid.uuid4())), timeout=20)
        publish_seconds = time.monotonic() - began
    expected = [first.name]
    died = 0
    while died < MOMENTS:
        assert len(expected) < 10 * (MOMENTS + 1), "hardly any kill meets a publish"
        data, request_id = adapter_bytes(seed=len(expected)), str(uuid.uuid4())
        with registry_process(data_dir, sources, store_settings) as process:
            timer = Timer(chance.uniform(0, publish_seconds), process.running.send_signal, [signal.SIGKILL])
            timer.start()
            try:
                process.api.PublishVersion(messages(data, request_id), timeout=20)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE
                died += 1
            timer.join()
            process.running.wait(10)
        with registry_process(data_dir, sources, store_settings) as process:
            listed = versions(process)
            assert len(listed) in (len(expected), len(expected) + 1)
            for version in listed[:2]:  # whatever the kill left is whole
                parts = process.api.DownloadVersion(pb.DownloadVersionRequest(name=version.name), timeout=5)
                assert sum(len(part.chunk) for part in parts) == version.size_bytes
            version = process.api.PublishVersion(messages(data, request_id), timeout=20)
            again = process.api.PublishVersion(messages(data, request_id), timeout=20)
            expected.append(version.name)
            assert again == version
            assert version.name == f"adapters/jiangnan/versions/{len(expected)}"
            assert [version.name for version in versions(process)] == expected[::-1]


def versions(process: Process) -> list[pb.AdapterVersion]:
    """All versions, newest first; none while the adapter does not exist."""
    try:
        request = pb.ListVersionsRequest(adapter="adapters/jiangnan", page_size=200)
        return list(process.api.ListVersions(request, timeout=5).versions)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND
        return []
