"""The S3 driver on a real MinIO behind connections that are slow, cut, silent or torn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from terroir.common.clock import SystemClock
from terroir.store.blobs import Blobs
from terroir.store.deadline import set_deadline
from terroir.store.documents import DocumentSequence
from terroir.store.errors import AlreadyExists, StoreUnavailable
from terroir.store.interface import ObjectStore
from terroir.store.s3 import S3Location, S3Store
from tests.tools.careless_s3 import careless_s3
from tests.tools.minio_server import MinioServer
from tests.tools.toxiproxy_server import Proxy, ToxiproxyServer

SLACK_SECONDS = 1.0
"""For the machine, which runs other tests too."""

Way = Callable[[Proxy], AbstractContextManager[None]]


@pytest.fixture
def way(minio: MinioServer, toxiproxy: ToxiproxyServer) -> Iterator[Proxy]:
    with toxiproxy.proxy(minio.address) as proxy:
        yield proxy


@pytest.fixture
def location(minio: MinioServer, way: Proxy) -> S3Location:
    """A fresh bucket, reached through the proxy, with limits that a test can wait for."""
    return replace(minio.location(), endpoint=way.endpoint, retry_seconds=0.5, silence_seconds=1.0, timeout_seconds=3.0)


def sequence(store: ObjectStore, prefix: str = "log") -> DocumentSequence:
    return DocumentSequence(store, prefix, SystemClock())


REQUESTS: dict[str, Callable[[S3Store], object]] = {
    "get": lambda store: store.get("there"),
    "get_range": lambda store: store.get_range("there", 0, 1),
    "size": lambda store: store.size("there"),
    "exists": lambda store: store.exists("there"),
    "create": lambda store: store.create("new", b"body"),
    "create large": lambda store: store.create("large", bytes(3_000_000)),
    "put": lambda store: store.put("hint", b"body"),
    "delete": lambda store: store.delete("there"),
    "list": lambda store: list(store.list("")),
}


@pytest.mark.parametrize("fault", ["cut", "silent", "without_answers"])
def test_every_request_over_a_broken_connection_is_unavailable_in_time_and_works_again_after(
    location: S3Location, way: Proxy, fault: str
) -> None:
    """All at once, on connections that were open before, as in a service."""
    store = S3Store(location)
    store.create("there", b"body")
    assert list(store.list("")) == ["there"]

    def failing(name: str) -> tuple[str, float]:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            REQUESTS[name](store)
        assert caught.value.passes, "not told to try again"
        assert caught.value.reason == "STORE_UNREACHABLE"
        assert way.address in str(caught.value), "the message does not name the place"
        return name, time.monotonic() - began

    with getattr(way, fault)(), ThreadPoolExecutor(len(REQUESTS)) as pool:
        for name, seconds in pool.map(failing, REQUESTS):
            bound = location.bound_seconds if "large" not in name else location.timeout_seconds
            # A range is two requests.
            assert seconds < bound * (2 if name == "get_range" else 1) + SLACK_SECONDS, name
    store.delete("there")
    store.create("there", b"again")
    assert store.get("there") == b"again"


def test_half_a_second_of_latency_is_waited_for(location: S3Location, way: Proxy) -> None:
    store = S3Store(location)
    with way.slow(500):
        document = sequence(store).append({"n": 1}, op_id="slow")
        digest = Blobs(store).put(bytes(2_000_000))
    assert sequence(store).head() == document
    assert Blobs(store).size(digest) == 2_000_000


def test_a_long_upload_is_no_silent_server(location: S3Location, way: Proxy) -> None:
    """It takes longer than a server may be silent; the HTTP client below counts that from the begin of a request."""
    store = S3Store(replace(location, silence_seconds=0.3))
    with way.narrow(3_000):
        store.create("large", bytes(3_000_000))
    with way.narrow(3_000, "downstream"):
        assert len(store.get("large")) == 3_000_000


def test_a_body_that_never_ends_is_given_up(location: S3Location, way: Proxy) -> None:
    store = S3Store(location)
    began = time.monotonic()
    with way.narrow(10), pytest.raises(StoreUnavailable):
        store.create("large", bytes(3_000_000))
    assert time.monotonic() - began < location.timeout_seconds + SLACK_SECONDS


def test_a_download_torn_in_the_middle_is_no_short_object(location: S3Location, way: Proxy) -> None:
    store = S3Store(location)
    body = bytes(range(256)) * 4_000
    store.create("large", body)
    with way.torn(200_000):
        try:
            assert store.get("large") == body  # the client below may have gone on from where it was torn
        except StoreUnavailable as error:
            assert error.passes
    assert store.get("large") == body


def test_a_write_whose_answer_is_lost_is_found_by_its_repeat(
    location: S3Location, way: Proxy, minio: MinioServer
) -> None:
    """Each of the seven requests of an append loses its answer in one round, that of the create among them."""
    direct = S3Store(replace(location, endpoint=minio.endpoint))
    lost = []
    for number in range(1, 8):
        prefix = f"log-{number}"
        sequence(direct, prefix).append({"n": 0}, op_id="before")
        store = _LosesAnswers(S3Store(replace(location, retry_seconds=0.0)), way, number)
        try:
            first = sequence(store, prefix).append({"n": 1}, op_id="operation")
        except StoreUnavailable:
            first = None
        again = sequence(direct, prefix).append({"n": 1}, op_id="operation")
        assert first in (None, again)
        assert [document.op_id for document in sequence(direct, prefix).history()] == ["before", "operation"]
        lost.append(store.lost)
    assert [verb for verb, _ in lost] == ["get"] * 4 + ["create"] * 2 + ["put"]
    assert lost[4] == ("create", "json")


class _LosesAnswers:
    """Sends one request of several over a connection that is cut before its answer."""

    def __init__(self, inner: S3Store, way: Proxy, which: int) -> None:
        self._inner, self._way, self._left = inner, way, which
        self.lost = ("", "")
        """Verb and end of the key."""

    def __getattr__(self, name: str) -> Callable[..., object]:
        method = getattr(self._inner, name)

        def counted(key: str, *arguments: object) -> object:
            self._left -= 1
            if self._left:
                return method(key, *arguments)
            self.lost = (name, key.rpartition("." if "." in key else "/")[2])
            with self._way.without_answers():
                return method(key, *arguments)

        return counted


def test_a_call_whose_deadline_has_passed_asks_the_store_for_nothing_more(location: S3Location, way: Proxy) -> None:
    store = S3Store(location)

    def call() -> float:
        set_deadline(0.7)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            for number in range(100):
                sequence(store).append({"n": number}, op_id=f"operation-{number}")
        assert caught.value.reason == "STORE_DEADLINE_PASSED"
        return time.monotonic() - began

    with way.slow(300), ThreadPoolExecutor(1) as pool:
        assert pool.submit(call).result() < 0.7 + 0.3 + SLACK_SECONDS


def test_a_missing_bucket_and_a_wrong_key_are_told_apart_and_not_worth_a_repeat(location: S3Location) -> None:
    for wrong, reason in (
        (replace(location, bucket="no-such-bucket"), "STORE_BUCKET_MISSING"),
        (replace(location, secret_access_key="wrong"), "STORE_PERMISSION_DENIED"),
        (replace(location, access_key_id="nobody"), "STORE_PERMISSION_DENIED"),
    ):
        for name in ("get", "create", "put", "list"):
            with pytest.raises(StoreUnavailable) as caught:
                REQUESTS[name](S3Store(wrong))
            assert (caught.value.reason, caught.value.passes) == (reason, False), name
            assert "wrong" not in str(caught.value), "the secret is in the message"


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (412, "PreconditionFailed", "STORE_OBJECT_EXISTS"),
        (409, "ConditionalRequestConflict", "STORE_OBJECT_EXISTS"),
        (501, "NotImplemented", "STORE_NOT_CONDITIONAL"),
        (503, "SlowDownWrite", "STORE_UNREACHABLE"),
        (500, "InternalError", "STORE_UNREACHABLE"),
        (403, "AccessDenied", "STORE_PERMISSION_DENIED"),
        (404, "NoSuchBucket", "STORE_BUCKET_MISSING"),
    ],
)
def test_what_a_service_answers_to_a_create(status: int, code: str, reason: str) -> None:
    with careless_s3((status, code)) as endpoint:
        location = S3Location("styles", endpoint=endpoint, access_key_id="k", secret_access_key="s", retry_seconds=0.3)
        began = time.monotonic()
        with pytest.raises((AlreadyExists, StoreUnavailable)) as caught:
            S3Store(location).create("key", b"body")
        assert caught.value.reason == reason
        assert time.monotonic() - began < location.bound_seconds
