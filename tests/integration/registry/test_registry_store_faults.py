"""Registry replicas whose MinIO is slow, cut off, silent, stopped or killed while publishers and readers go on."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Event, Thread

import grpc
import pytest

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.common.errors import TerroirError
from terroir.common.grpc_errors import from_rpc
from terroir.store.s3 import S3Location
from tests.integration.registry.registry_kit import Process, adapter_bytes, header, registry_process
from tests.tools.minio_server import MinioServer
from tests.tools.toxiproxy_server import Proxy, ToxiproxyServer

pytestmark = pytest.mark.slow  # writing the pipeline takes torch, and each fault lasts some seconds

DEADLINE_SECONDS = 15.0
SLACK_SECONDS = 2.0
FAULT_SECONDS = 2.0
PUBLISHERS = 2


def publish(process: Process, data: bytes, request_id: str) -> pb.AdapterVersion:
    def messages() -> Iterator[pb.PublishVersionRequest]:
        first = header(data)
        first.header.request_id = request_id
        yield first
        for at in range(0, len(data), 64 * 1024):
            yield pb.PublishVersionRequest(chunk=data[at : at + 64 * 1024])

    return process.api.PublishVersion(messages(), timeout=DEADLINE_SECONDS)


def versions(process: Process) -> list[pb.AdapterVersion]:
    """All of them, newest first."""
    found: list[pb.AdapterVersion] = []
    token = ""
    while True:
        request = pb.ListVersionsRequest(adapter="adapters/jiangnan", page_size=200, page_token=token)
        page = process.api.ListVersions(request, timeout=DEADLINE_SECONDS)
        found.extend(page.versions)
        if not (token := page.next_page_token):
            return found


@dataclass
class Load:
    """Callers that publish, and one that reads a version that the replica knows; all keep what they were told."""

    process: Process
    first_seed: int
    published: list[tuple[str, bytes, pb.AdapterVersion]] = field(default_factory=list)
    errors: list[TerroirError] = field(default_factory=list)
    failed_reads: list[str] = field(default_factory=list)
    slowest: float = 0.0
    slowest_read: float = 0.0
    _over: Event = field(default_factory=Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [Thread(target=self._publish, args=(publisher,), daemon=True) for publisher in range(PUBLISHERS)]
        threads.append(Thread(target=self._read, daemon=True))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(2 * DEADLINE_SECONDS)
                assert not thread.is_alive(), "a caller was left waiting"

    def wait_for_more(self) -> None:
        """Return once publishes succeed again."""
        before = len(self.published)
        until = time.monotonic() + DEADLINE_SECONDS
        while len(self.published) < before + PUBLISHERS + 1:
            assert time.monotonic() < until, f"no recovery: {[str(error) for error in self.errors[-3:]]}"
            time.sleep(0.05)

    def check(self) -> None:
        """What holds whatever the fault was."""
        assert not self.failed_reads, "a version that the replica knows is read from its memory"
        assert self.slowest_read < SLACK_SECONDS
        assert self.slowest < DEADLINE_SECONDS + SLACK_SECONDS, "a call outlived its deadline"
        for error in self.errors:
            assert error.code.value == "UNAVAILABLE", error
            assert error.retry_after_seconds, f"not told when to come again: {error}"
            assert error.reason.startswith("STORE_")

    def _publish(self, publisher: int) -> None:
        """A file under one request_id until it is told that it is stored, as a client does; then the next."""
        for number in count(self.first_seed + publisher, PUBLISHERS):
            data, request_id = adapter_bytes(seed=number), str(uuid.uuid4())
            while not self._attempt(data, request_id):
                time.sleep(0.2)
            if self._over.is_set():
                return

    def _attempt(self, data: bytes, request_id: str) -> bool:
        began = time.monotonic()
        try:
            self.published.append((request_id, data, publish(self.process, data, request_id)))
        except grpc.RpcError as error:
            self.errors.append(from_rpc(error))
            return False
        finally:
            self.slowest = max(self.slowest, time.monotonic() - began)
        return True

    def _read(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                request = pb.GetVersionRequest(name="adapters/jiangnan/versions/1")
                self.process.api.GetVersion(request, timeout=DEADLINE_SECONDS)
            except grpc.RpcError as error:
                self.failed_reads.append(str(from_rpc(error)))
            self.slowest_read = max(self.slowest_read, time.monotonic() - began)
            time.sleep(0.02)


@contextmanager
def stopped(server: MinioServer) -> Iterator[None]:
    server.stop()
    yield
    server.start()


@contextmanager
def killed(server: MinioServer) -> Iterator[None]:
    server.kill()
    yield
    server.start()


Fault = Callable[[MinioServer, Proxy], AbstractContextManager[None]]
FAULTS: dict[str, Fault] = {
    "slow": lambda _, way: way.slow(500),
    "cut": lambda _, way: way.cut(),
    "silent": lambda _, way: way.silent(),
    "without answers": lambda _, way: way.without_answers(),
    "stopped": lambda server, _: stopped(server),
    "killed": lambda server, _: killed(server),
}


def on(server: MinioServer, location: S3Location, endpoint: str) -> dict[str, str]:
    """Settings of a registry on the bucket at `endpoint`, with limits that a test can wait for."""
    return {
        **server.settings("registry", location),
        "TERROIR_REGISTRY_STORE_ENDPOINT": endpoint,
        "TERROIR_REGISTRY_STORE_SILENCE_SECONDS": "1",
        "TERROIR_REGISTRY_STORE_RETRY_SECONDS": "0.5",
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_callers_are_told_to_come_again_and_everything_is_there_once_after(
    fault: str,
    own_minio: MinioServer,
    toxiproxy: ToxiproxyServer,
    base_folder: Path,
    tmp_path: Path,
) -> None:
    """The fault lies between one replica and MinIO; another one, with a way of its own, goes on at the same time."""
    sources, location = {"tiny": str(base_folder)}, own_minio.location()
    folders = [tmp_path / name for name in ("struck", "other", "third")]
    for folder in folders:
        folder.mkdir()
    with ExitStack() as stack:
        way = stack.enter_context(toxiproxy.proxy(own_minio.address))
        processes = []
        for folder, endpoint in zip(folders, (way.endpoint, own_minio.endpoint), strict=False):
            settings = on(own_minio, location, endpoint)
            processes.append(stack.enter_context(registry_process(folder / "data", sources, settings)))
        publish(processes[0], adapter_bytes(seed=999_999), "first")
        publish(processes[1], adapter_bytes(seed=999_998), "second")  # so that the other has heard of the first
        struck, other = (Load(process, first) for process, first in zip(processes, (0, 100_000), strict=True))
        with struck.running(), other.running():
            time.sleep(0.5)
            with FAULTS[fault](own_minio, way):
                time.sleep(FAULT_SECONDS)
            for load in (struck, other):
                load.wait_for_more()
        for load in (struck, other):
            load.check()
        if fault != "slow":
            assert struck.errors, "the fault met no call"
        if fault not in ("stopped", "killed"):
            assert not other.errors, "a fault on the way of one replica is none of the other's"
        published = struck.published + other.published
        for request_id, data, version in published:
            assert publish(processes[0], data, request_id) == version, "a repeat at the other replica"
        # A third knows nothing but the bucket.
        processes.append(stack.enter_context(registry_process(folders[2] / "data", sources, settings)))
        for process in processes:
            listed = versions(process)
            assert [version.name for version in reversed(listed)] == [
                f"adapters/jiangnan/versions/{number + 1}" for number in range(len(published) + 2)
            ], "a gap, a loss or a duplicate"
            assert {version.name for _, _, version in published} <= {version.name for version in listed}
