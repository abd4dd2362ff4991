"""Covers from a program: an answer in time whatever the servers do, and what people ask for beside it."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from terroir._proto.inference.v1 import cover_pb2 as pb
from terroir._proto.inference.v1 import cover_pb2_grpc, inference_pb2
from terroir.client import Client, Cover, CoverContent, CoverQuery, Endpoints, Rung
from terroir.client.hedging import LEAST_SECONDS, Pace
from terroir.client.ring import Ring
from terroir.common.errors import InvalidArgument, NotFound, PermissionDenied, Unauthenticated, Unavailable

FILE = b"RIFF....WEBP"
DIGEST = hashlib.sha256(FILE).hexdigest()
PATIENT: dict[str, Any] = {"timeout": 10.0, "hedge_after_seconds": 9.0}
"""For calls that prove something else than haste."""


class Servicer(cover_pb2_grpc.CoverServiceServicer):
    """Answers with what it was asked, late or wrongly where it is told to."""

    def __init__(self) -> None:
        self.asked: list[pb.GetCoversRequest] = []
        self.peers: list[str] = []
        self.held: threading.Event | None = None
        """Answers wait for it."""
        self.cancelled = threading.Event()
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.broken = False
        self.prepared: list[pb.PrepareCoversRequest] = []
        self.invalidated: list[pb.InvalidateCoversRequest] = []
        self.watched = 0

    def GetCovers(self, request: pb.GetCoversRequest, context: Any) -> pb.GetCoversResponse:
        self.asked.append(request)
        self.peers.append(context.peer())
        if self.held is not None:
            context.add_callback(self.cancelled.set)
            self.held.wait(10)
        self._refuse(context)
        answer = pb.GetCoversResponse()
        for query in request.queries:
            for content in query.contents:
                if content == "unknown":
                    answer.covers.add(
                        content=content, region=query.region, rung=pb.RUNG_DEFAULT, lack=pb.LACK_NOT_DRAWN
                    )
                    continue
                for number in range(query.count):
                    answer.covers.add(
                        content=content, region=query.region, variant=number, rung=pb.RUNG_PARENT, source="regions/CN",
                        lack=pb.LACK_NOT_DRAWN, filling=True, stale=True, stale_seconds=2.5, picture=f"covers/{DIGEST}",
                        digest=DIGEST, object_key=f"covers/pictures/{DIGEST[:2]}/{DIGEST}", size_bytes=len(FILE),
                        format="PICTURE_FORMAT_WEBP", width=64, height=36, picture_id="p", seed=7,
                        data=FILE if request.with_data else b"",
                    )  # fmt: skip
        return answer

    def ReadCover(self, request: pb.ReadCoverRequest, context: Any) -> Iterator[pb.ReadCoverResponse]:
        self._refuse(context)
        for at in range(0, len(FILE), 5):
            yield pb.ReadCoverResponse(data=FILE[at : at + 5])

    def PrepareCovers(self, request: pb.PrepareCoversRequest, context: Any) -> pb.CoverPreparation:
        self._refuse(context)
        self.prepared.append(request)
        return pb.CoverPreparation(name="preparations/p1", state=pb.PREPARATION_STATE_RUNNING, total=2)

    def GetPreparation(self, request: pb.GetPreparationRequest, context: Any) -> pb.CoverPreparation:
        return pb.CoverPreparation(name=request.name)

    def ListPreparations(self, request: pb.ListPreparationsRequest, context: Any) -> pb.ListPreparationsResponse:
        number = int(request.page_token or 1)
        made = pb.ListPreparationsResponse(next_page_token=str(number + 1) if number < 3 else "")
        made.preparations.add(name=f"preparations/p{number}")
        return made

    def WatchPreparation(
        self, request: pb.WatchPreparationRequest, context: Any
    ) -> Iterator[pb.WatchPreparationResponse]:
        """The first stream breaks in the middle."""
        self.watched += 1
        yield pb.WatchPreparationResponse(preparation=pb.CoverPreparation(name=request.name, drawn=self.watched))
        if self.watched == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "")
        ended = pb.CoverPreparation(name=request.name, state=pb.PREPARATION_STATE_SUCCEEDED, drawn=2)
        yield pb.WatchPreparationResponse(preparation=ended)

    def CancelPreparation(self, request: pb.CancelPreparationRequest, context: Any) -> pb.CoverPreparation:
        return pb.CoverPreparation(name=request.name, state=pb.PREPARATION_STATE_CANCELLED)

    def InvalidateCovers(self, request: pb.InvalidateCoversRequest, context: Any) -> pb.InvalidateCoversResponse:
        self._refuse(context)
        self.invalidated.append(request)
        return pb.InvalidateCoversResponse()

    def _refuse(self, context: Any) -> None:
        if self.refusal is not None:
            context.abort(*self.refusal)


@contextmanager
def serving(servicer: Servicer) -> Iterator[str]:
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads)
        cover_pb2_grpc.add_CoverServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            if servicer.held is not None:
                servicer.held.set()
            server.stop(None)


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
def client(servicer: Servicer) -> Iterator[Client]:
    with serving(servicer) as target, Client(Endpoints(inference=target)) as opened:
        yield opened


@pytest.fixture
def two() -> Iterator[tuple[Client, Servicer, Servicer]]:
    """A client of two replicas; the first is the home of CN-ZJ."""
    servicers = [Servicer(), Servicer()]
    with ExitStack() as stack:
        targets = dict(zip([stack.enter_context(serving(one)) for one in servicers], servicers, strict=True))
        home, other = Ring(targets).order("regions/CN-ZJ")
        client = stack.enter_context(Client(Endpoints(inference=",".join(targets))))
        client.covers.get("warm", "CN-ZJ", **PATIENT)  # both connections are there
        client.covers._stubs[other].GetCovers(pb.GetCoversRequest())
        for one in servicers:
            one.asked.clear()
        yield client, targets[home], targets[other]


def dead_target() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def test_covers_come_with_all_that_is_told_of_them(client: Client, servicer: Servicer) -> None:
    covers = client.covers.get(
        ["post-1", "post-2"], "CN-ZJ", count=2, sticky_key="ana", aspect="16:9", file_format="png", with_data=True,
        **PATIENT,
    )  # fmt: skip
    assert [(cover.content, cover.variant) for cover in covers] == [
        ("post-1", 0), ("post-1", 1), ("post-2", 0), ("post-2", 1),
    ]  # fmt: skip
    assert covers[0] == Cover(
        "post-1", "regions/CN-ZJ", 0, Rung.PARENT, "regions/CN", True, 2.5, "not_drawn", True, f"covers/{DIGEST}",
        f"covers/pictures/{DIGEST[:2]}/{DIGEST}", DIGEST, len(FILE), "webp", 64, 36, "p", 7, FILE,
    )  # fmt: skip
    (asked,) = servicer.asked
    assert asked.sticky_key == "ana"
    assert (asked.shape.aspect_ratio, asked.shape.format) == (2, 1)


def test_several_regions_are_asked_for_in_one_call(client: Client, servicer: Servicer) -> None:
    queries = [CoverQuery(["a", "b"], "CN-ZJ"), CoverQuery(["a"], "regions/CN-XJ", 2), CoverQuery(["c"])]
    covers = client.covers.get_many(queries, **PATIENT)
    assert [(cover.content, cover.region) for cover in covers] == [
        ("a", "regions/CN-ZJ"), ("b", "regions/CN-ZJ"), ("a", "regions/CN-XJ"), ("a", "regions/CN-XJ"), ("c", ""),
    ]  # fmt: skip
    assert len(servicer.asked) == 1


@pytest.mark.parametrize(
    ("default", "picture", "data"),
    [
        ("/img/plain.webp", "/img/plain.webp", b""),
        (b"bytes", "", b"bytes"),
        (lambda key: f"/img/{key}.webp", "/img/unknown.webp", b""),
        (lambda key: key.encode(), "", b"unknown"),
    ],
)
def test_what_no_server_has_is_the_callers_own_picture(client: Client, default: Any, picture: str, data: bytes) -> None:
    known, unknown = client.covers.get(["post", "unknown"], "CN-ZJ", default=default, **PATIENT)
    assert known.rung is Rung.PARENT and known.picture == f"covers/{DIGEST}"
    assert (unknown.rung, unknown.picture, unknown.data) == (Rung.DEFAULT, picture, data)
    assert (unknown.lack, unknown.unanswered) == ("not_drawn", "")


def test_where_nobody_listens_every_content_gets_the_default_and_the_reason() -> None:
    with Client(Endpoints(inference=dead_target())) as client:
        covers = client.covers.get(["a", "b"], "CN-ZJ", count=3, default=lambda key: f"/{key}.webp", timeout=5.0)
    assert [(cover.content, cover.region, cover.rung, cover.picture, cover.unanswered) for cover in covers] == [
        ("a", "regions/CN-ZJ", Rung.DEFAULT, "/a.webp", "SERVICE_UNREACHABLE"),
        ("b", "regions/CN-ZJ", Rung.DEFAULT, "/b.webp", "SERVICE_UNREACHABLE"),
    ]


def test_past_the_deadline_the_default_answers(client: Client, servicer: Servicer) -> None:
    servicer.held = threading.Event()
    begun = time.monotonic()
    (cover,) = client.covers.get("a", "CN-ZJ", default="/plain.webp", timeout=0.1)
    assert time.monotonic() - begun < 5
    assert (cover.rung, cover.picture, cover.unanswered) == (Rung.DEFAULT, "/plain.webp", "DEADLINE_EXCEEDED")
    assert servicer.cancelled.wait(10), "what nobody waits for is cancelled"


def test_a_late_replica_is_passed_over_and_its_call_cancelled(two: tuple[Client, Servicer, Servicer]) -> None:
    client, home, other = two
    home.held = threading.Event()
    (cover,) = client.covers.get("a", "CN-ZJ", timeout=10.0, hedge_after_seconds=0.0)
    assert cover.rung is Rung.PARENT and cover.unanswered == ""
    assert len(home.asked) == len(other.asked) == 1
    assert home.cancelled.wait(10)


def test_a_replica_that_is_late_each_time_is_left_alone_for_a_while(two: tuple[Client, Servicer, Servicer]) -> None:
    client, home, other = two
    home.held = threading.Event()
    for _ in range(3):
        client.covers.get("a", "CN-ZJ", timeout=10.0, hedge_after_seconds=0.01)
    assert len(home.asked) == 3
    client.covers.get("a", "CN-ZJ", **PATIENT)
    assert (len(home.asked), len(other.asked)) == (3, 4)


def test_a_replica_in_time_is_asked_alone(two: tuple[Client, Servicer, Servicer]) -> None:
    client, home, other = two
    client.covers.get("a", "CN-ZJ", **PATIENT)
    assert (len(home.asked), len(other.asked)) == (1, 0)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
def test_a_replica_that_fails_is_followed_by_the_other_at_once(
    two: tuple[Client, Servicer, Servicer], code: grpc.StatusCode
) -> None:
    client, home, other = two
    home.refusal = (code, "broken")
    (cover,) = client.covers.get("a", "CN-ZJ", **PATIENT)
    assert cover.rung is Rung.PARENT
    other.refusal = (code, "broken")
    (cover,) = client.covers.get("a", "CN-ZJ", default="/plain.webp", **PATIENT)
    assert cover.picture == "/plain.webp" and cover.unanswered


def test_the_only_replica_is_asked_again_over_a_connection_of_its_own(client: Client, servicer: Servicer) -> None:
    servicer.held = threading.Event()
    release = servicer.held
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(client.covers.get, "a", "CN-ZJ", timeout=10.0, hedge_after_seconds=0.01)
        _until(lambda: len(servicer.peers) == 2)
        release.set()
        assert answer.result()[0].rung is Rung.PARENT
    assert len(set(servicer.peers)) == 2, "one connection that hangs must not hold both calls"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDenied),
        (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated),
    ],
)
def test_mistakes_of_the_caller_are_errors(
    client: Client, servicer: Servicer, code: grpc.StatusCode, error: type[Exception]
) -> None:
    servicer.refusal = (code, "wrong")
    with pytest.raises(error):
        client.covers.get("a", "CN-ZJ", **PATIENT)
    assert len(servicer.asked) == 1, "no other replica would say otherwise"


def test_a_shape_or_format_that_is_none_is_a_mistake(client: Client) -> None:
    with pytest.raises(KeyError):
        client.covers.get("a", aspect="5:4")
    with pytest.raises(KeyError):
        client.covers.get("a", file_format="gif")


def test_the_second_call_waits_for_what_is_usual() -> None:
    pace = Pace()
    assert pace.hedge_after(10.0) == 0.05, "before anything is known"
    for number in range(100):
        pace.learn(0.02 if number < 90 else 0.03)
    assert pace.hedge_after(10.0) == 0.03
    assert pace.hedge_after(0.04) == 0.02, "at most half of the time there is"
    for _ in range(200):
        pace.learn(0.001)
    assert pace.hedge_after(10.0) == LEAST_SECONDS


def test_a_file_is_read_whole_and_verified(client: Client, servicer: Servicer) -> None:
    assert client.covers.read(f"covers/{DIGEST}") == FILE
    with pytest.raises(Unavailable) as damaged:
        client.covers.read("covers/" + "0" * 64)
    assert damaged.value.reason == "DOWNLOAD_CORRUPT"
    servicer.refusal = (grpc.StatusCode.NOT_FOUND, "replaced")
    with pytest.raises(NotFound):
        client.covers.read(f"covers/{DIGEST}")


def test_a_preparation_is_asked_for_in_full(client: Client, servicer: Servicer) -> None:
    deadline = datetime(2027, 1, 2, tzinfo=UTC)
    made = client.covers.prepare(
        {"post-1": "a red teapot"}, ["CN-ZJ", ""], variants=3, width=64, height=64, priority="high",
        deadline=deadline, max_pictures=9, redraw=True, request_id="r",
    )  # fmt: skip
    assert made.name == "preparations/p1"
    (asked,) = servicer.prepared
    timestamp = Timestamp()
    timestamp.FromDatetime(deadline)
    assert asked == pb.PrepareCoversRequest(
        contents=[pb.CoverContent(key="post-1", prompt="a red teapot")], regions=["regions/CN-ZJ", ""], variants=3,
        shape=pb.CoverShape(width=64, height=64), priority=inference_pb2.PRIORITY_HIGH, deadline=timestamp,
        max_pictures=9, redraw=True, request_id="r",
    )  # fmt: skip
    client.covers.prepare([CoverContent("a", "b", "c")], ["CN"])
    assert servicer.prepared[1].contents[0].negative_prompt == "c"
    assert servicer.prepared[1].request_id, "a retry on another replica must not begin a second one"


def test_preparations_are_listed_watched_and_cancelled(client: Client) -> None:
    assert client.covers.preparation("preparations/p7").name == "preparations/p7"
    assert [found.name for found in client.covers.preparations()] == [f"preparations/p{n}" for n in (1, 2, 3)]
    assert client.covers.cancel("preparations/p7").state == pb.PREPARATION_STATE_CANCELLED
    seen = [found.drawn for found in client.covers.watch("preparations/p7")]
    assert seen == [1, 2, 2], "a stream that broke is taken up again"


def test_covers_are_invalidated_on_another_replica_where_the_first_is_gone(servicer: Servicer) -> None:
    with serving(servicer) as target:
        for order in ((dead_target(), target), (target, dead_target())):
            with Client(Endpoints(inference=",".join(order))) as client:
                client.covers.invalidate(["a"], "CN-ZJ", withdraw=True, reason="a mistake")
                client.covers.invalidate(["b"])
    first = servicer.invalidated[0]
    assert (list(first.contents), first.region, first.withdraw) == (["a"], "regions/CN-ZJ", True)
    assert all(request.request_id for request in servicer.invalidated) and len(servicer.invalidated) == 4


def test_what_changes_something_is_refused_aloud(client: Client, servicer: Servicer) -> None:
    servicer.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "no contents")
    with pytest.raises(InvalidArgument):
        client.covers.prepare({}, ["CN"])
    with pytest.raises(InvalidArgument):
        client.covers.invalidate()


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
