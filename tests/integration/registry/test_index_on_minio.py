"""Two registries on a real MinIO: the watch between them, and reads while the store is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.registry.settings import RegistrySettings
from tests.contract.registry.running import Running, refused, running_registry
from tests.tools.minio_server import ACCESS_KEY, SECRET_KEY, MinioServer
from tests.unit.registry.adapter_kit import adapter_bytes
from tests.unit.registry.base_kit import write_base_folder

pytestmark = pytest.mark.slow(reason="starts a MinIO and two registries")


@pytest.fixture
def replicas(own_minio: MinioServer, tmp_path: Path) -> Iterator[tuple[Running, Running]]:
    """Two registries on one bucket."""
    location = own_minio.location()
    settings = RegistrySettings(
        data_dir=tmp_path / "data",
        port=0,
        base_sources={"tiny": write_base_folder(tmp_path / "tiny", 0)},
        store=f"s3://{location.bucket}",
        store_endpoint=location.endpoint,
        store_access_key_id=SecretStr(ACCESS_KEY),
        store_secret_access_key=SecretStr(SECRET_KEY),
        store_retry_seconds=1,
    )
    with ExitStack() as stack:
        first, second = (stack.enter_context(running_registry(settings)) for _ in range(2))
        yield first, second


def changes(stream: Any, count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        message = next(stream)
        if message.HasField("change"):
            found.append(message.change.name)
    return found


def test_a_publish_reaches_the_watchers_of_another_replica_within_a_second(replicas: tuple[Running, Running]) -> None:
    writer, other = replicas
    stream = other.api.Watch(pb.WatchRequest(), timeout=60)
    next(stream)
    for number in range(1, 6):
        version = writer.publish("adapters/jiangnan", adapter_bytes(4, number))
        published = time.monotonic()
        assert changes(stream, 1) == [version.name]
        assert time.monotonic() - published < 1


def test_what_is_known_is_read_while_the_store_is_away_and_the_watch_goes_on_when_it_is_back(
    replicas: tuple[Running, Running], own_minio: MinioServer
) -> None:
    writer, other = replicas
    stream = other.api.Watch(pb.WatchRequest(), timeout=120)
    token = next(stream).resume_token
    writer.publish("adapters/jiangnan", adapter_bytes(4, 1), tags=["ink"])
    assert changes(stream, 1) == ["adapters/jiangnan/versions/1"]
    writer.set_alias("staging", 1)
    assert changes(stream, 1) == ["adapters/jiangnan"]
    own_minio.kill()
    for replica in replicas:
        known = replica.api.GetVersion(pb.GetVersionRequest(name="adapters/jiangnan@staging"), timeout=5)
        assert known.name == "adapters/jiangnan/versions/1"
        inked = pb.ListAdaptersRequest(filter=pb.AdapterFilter(tags=["ink"]))
        assert len(replica.api.ListAdapters(inked, timeout=5).adapters) == 1
        assert len(replica.api.FindByHash(pb.FindByHashRequest(hash=known.file_digest), timeout=5).versions) == 1
        assert [base.name for base in replica.api.ListBases(pb.ListBasesRequest(), timeout=15).bases] == ["bases/tiny"]
        with refused() as strong:
            replica.api.GetVersion(pb.GetVersionRequest(name="adapters/jiangnan", strong=True), timeout=30)
        assert strong.code == "UNAVAILABLE"
        assert strong.found is not None
        assert strong.found.retry_after_seconds is not None
    with refused() as written:
        writer.publish("adapters/jiangnan", adapter_bytes(4, 2))
    assert written.code == "UNAVAILABLE"
    own_minio.start()
    writer.publish("adapters/jiangnan", adapter_bytes(4, 3))
    assert changes(stream, 1) == ["adapters/jiangnan/versions/2"]
    again = other.api.Watch(pb.WatchRequest(resume_token=token), timeout=30)
    assert set(changes(again, 3)) == {f"adapters/jiangnan{end}" for end in ("", "/versions/1", "/versions/2")}
