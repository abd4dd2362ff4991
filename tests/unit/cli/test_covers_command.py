"""`terroir covers` over a real call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner, Result

from terroir._proto.inference.v1 import cover_pb2 as pb
from terroir._proto.inference.v1 import cover_pb2_grpc
from terroir.cli.main import app
from terroir.common.errors import InvalidArgument, Unavailable

FILE = b"RIFF....WEBP"
DIGEST = hashlib.sha256(FILE).hexdigest()


class Servicer(cover_pb2_grpc.CoverServiceServicer):
    """Knows the content `post` alone, and preparations of which the one ends well and the other does not."""

    def __init__(self) -> None:
        self.asked: Any = None

    def GetCovers(self, request: pb.GetCoversRequest, context: Any) -> pb.GetCoversResponse:
        self.asked = request
        answer = pb.GetCoversResponse()
        for content in request.queries[0].contents:
            cover = answer.covers.add(content=content, region=request.queries[0].region, rung=pb.RUNG_DEFAULT)
            cover.lack = pb.LACK_NOT_DRAWN
            if content != "unknown":
                cover.rung, cover.source, cover.stale, cover.stale_seconds = pb.RUNG_PARENT, "regions/CN", True, 90
                cover.filling, cover.digest, cover.picture = True, DIGEST, f"covers/{DIGEST}"
                cover.format = request.shape.format
        return answer

    def ReadCover(self, request: pb.ReadCoverRequest, context: Any) -> Iterator[pb.ReadCoverResponse]:
        yield pb.ReadCoverResponse(data=FILE)

    def PrepareCovers(self, request: pb.PrepareCoversRequest, context: Any) -> pb.CoverPreparation:
        self.asked = request
        return preparation("well", total=len(request.contents) * len(request.regions))

    def GetPreparation(self, request: pb.GetPreparationRequest, context: Any) -> pb.CoverPreparation:
        return preparation(request.name.removeprefix("preparations/"))

    def ListPreparations(self, request: pb.ListPreparationsRequest, context: Any) -> pb.ListPreparationsResponse:
        return pb.ListPreparationsResponse(preparations=[preparation("well"), preparation("badly")])

    def WatchPreparation(
        self, request: pb.WatchPreparationRequest, context: Any
    ) -> Iterator[pb.WatchPreparationResponse]:
        found = preparation(request.name.removeprefix("preparations/"))
        yield pb.WatchPreparationResponse(preparation=found)
        found.state, found.drawn, found.pictures = pb.PREPARATION_STATE_SUCCEEDED, found.total - found.failed, 9
        yield pb.WatchPreparationResponse(preparation=found)

    def CancelPreparation(self, request: pb.CancelPreparationRequest, context: Any) -> pb.CoverPreparation:
        found = preparation(request.name.removeprefix("preparations/"))
        found.state = pb.PREPARATION_STATE_CANCELLED
        return found

    def InvalidateCovers(self, request: pb.InvalidateCoversRequest, context: Any) -> pb.InvalidateCoversResponse:
        self.asked = request
        return pb.InvalidateCoversResponse()


def preparation(name: str, total: int = 4) -> pb.CoverPreparation:
    found = pb.CoverPreparation(
        name=f"preparations/{name}", state=pb.PREPARATION_STATE_RUNNING, total=total, contents=2, variants=2,
        regions=["regions/CN-ZJ", ""], creator="ana",
    )  # fmt: skip
    if name == "badly":
        found.failed = 1
        found.failures.add(content="post", region="regions/CN-ZJ", reason="BLOCKED_WORD", message="a word")
    return found


@pytest.fixture
def servicer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Servicer]:
    servicer = Servicer()
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads)
        cover_pb2_grpc.add_CoverServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        monkeypatch.setenv("TERROIR_ENDPOINTS", f"inference=127.0.0.1:{port}")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("COLUMNS", "300")
        yield servicer
        server.stop(None)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def said(*arguments: str, status: int = 0) -> str:
    done = run(*arguments)
    assert done.exit_code == status, done.output
    return done.stdout


def test_covers_are_shown_with_their_rungs_and_written(servicer: Servicer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = said(
        "covers", "get", "post", "../b: 1", "unknown", "--region", "CN-ZJ", "--size", "64x32", "--out", str(out)
    )
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[1] == f"post 0 parent CN 90 s not drawn yes covers/{DIGEST}"
    assert lines[3] == "unknown 0 default not drawn"
    names = {path.name for path in out.iterdir()}
    assert names == {"post-0.webp", f"-b-1-{hashlib.sha256(b'../b: 1').hexdigest()[:8]}-0.webp"}, "keys are no paths"
    assert (out / "post-0.webp").read_bytes() == FILE
    assert servicer.asked.queries[0].region == "regions/CN-ZJ" and servicer.asked.shape.width == 64


def test_covers_are_told_as_json(servicer: Servicer, tmp_path: Path) -> None:
    told = json.loads(said("--json", "covers", "get", "post", "--format", "png", "--out", str(tmp_path / "out")))
    assert told[0]["rung"] == "parent" and told[0]["lack"] == "not_drawn" and told[0]["stale_seconds"] == 90
    assert told[0]["file"].endswith("post-0.png") and "data" not in told[0]
    assert json.loads(said("--json", "covers", "get", "unknown"))[0]["file"] == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["get", "a", "--size", "64"], "BAD_SIZE"),
        (["get", "a", "--aspect", "16:8"], "UNKNOWN_ASPECT"),
        (["get", "a", "--format", "gif"], "UNKNOWN_FORMAT"),
        (["prepare", "{file}"], "REGION_MISSING"),
        (["prepare", "{file}", "--region", "CN", "--priority", "urgent"], "UNKNOWN_PRIORITY"),
        (["prepare", "{file}.bad", "--region", "CN"], "CONTENT_FILE_INVALID"),
    ],
)
@pytest.mark.usefixtures("servicer")
def test_what_is_mistyped_is_said_before_anything_is_sent(tmp_path: Path, arguments: list[str], reason: str) -> None:
    (tmp_path / "feed").write_text("post\ta hill\n")
    (tmp_path / "feed.bad").write_text("post a hill\n")
    done = run("covers", *(each.format(file=tmp_path / "feed") for each in arguments))
    assert isinstance(done.exception, InvalidArgument) and done.exception.reason == reason


def test_where_no_server_answers_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program shows its own picture; a person asks why."""
    monkeypatch.setenv("TERROIR_ENDPOINTS", "inference=127.0.0.1:9")
    done = run("covers", "get", "post")
    assert isinstance(done.exception, Unavailable) and done.exception.reason == "SERVICE_UNREACHABLE"


def test_a_preparation_is_begun_and_left(servicer: Servicer, tmp_path: Path) -> None:
    (tmp_path / "feed.txt").write_text("post\ta hill\nother\ta lake\n")
    text = said(
        "covers", "prepare", str(tmp_path / "feed.txt"), "--region", "CN-ZJ", "--region", "CN-XJ", "--base",
        "--variants", "3", "--aspect", "16:9", "--hours", "1", "--max-pictures", "9", "--redraw", "--priority", "high",
    )  # fmt: skip
    assert "terroir covers watch preparations/well" in text
    asked = servicer.asked
    assert [content.prompt for content in asked.contents] == ["a hill", "a lake"]
    assert list(asked.regions) == ["regions/CN-ZJ", "regions/CN-XJ", ""]
    assert (asked.variants, asked.max_pictures, asked.redraw) == (3, 9, True)
    assert asked.HasField("deadline") and asked.request_id


def test_a_preparation_is_followed_to_its_end(servicer: Servicer, tmp_path: Path) -> None:
    (tmp_path / "feed.txt").write_text("post\ta hill\n")
    text = said("covers", "prepare", str(tmp_path / "feed.txt"), "--region", "CN-ZJ", "--watch")
    assert "preparations/well succeeded" in text
    assert not servicer.asked.HasField("deadline")


def test_a_preparation_that_lacks_something_ends_with_status_1(servicer: Servicer) -> None:
    text = said("covers", "watch", "badly", status=1)
    assert "post in regions/CN-ZJ: [BLOCKED_WORD] a word" in text and "1 failed" in text
    assert "succeeded" in said("covers", "watch", "preparations/well")


@pytest.mark.usefixtures("servicer")
def test_preparations_are_listed_shown_and_cancelled() -> None:
    assert "badly running 1/4" in " ".join(said("covers", "preparations").split())
    assert [found["name"] for found in json.loads(said("--json", "covers", "preparations"))][1] == "preparations/badly"
    assert "2 contents × 2 regions (CN-ZJ, (base)), 2 variants each" in said("covers", "show", "well")
    assert "preparations/well cancelled" in said("covers", "cancel", "well")


def test_covers_are_invalidated(servicer: Servicer) -> None:
    text = said("covers", "invalidate", "a", "b", "--region", "CN-ZJ", "--withdraw", "--reason", "wrong shop")
    assert "covers of 2 contents in CN-ZJ are shown no more" in text
    asked = servicer.asked
    assert (list(asked.contents), asked.region, asked.withdraw, asked.reason) == (
        ["a", "b"], "regions/CN-ZJ", True, "wrong shop",
    )  # fmt: skip
    assert "covers of all contents in CN-ZJ are stale" in said("covers", "invalidate", "--region", "CN-ZJ")
    assert json.loads(said("--json", "covers", "invalidate", "a"))["withdrawn"] is False
