"""Sixteen writers at two replicas race for the next version and for one alias: one winner each, and nothing is lost.

TERROIR_SOAK_ROUNDS sets the number of rounds; 1,000 take about a quarter of an hour.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import grpc
import pytest

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.common.errors import TerroirError
from terroir.common.grpc_client import error_from_rpc
from tests.integration.registry.registry_kit import Process, header, registry_process
from tests.unit.registry.adapter_kit import adapter_bytes
from tests.unit.registry.base_kit import write_base_folder

ROUNDS = int(os.environ.get("TERROIR_SOAK_ROUNDS", "8"))
WRITERS = 16
ADAPTER, ALIAS = "adapters/jiangnan", "staging"
_SECONDS = 60.0
LAG_SECONDS = 5.0
"""A replica hears of the other's writes within one; a busy machine may need more."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 10 * ROUNDS)]  # hundreds of writes by real processes


@pytest.fixture(params=["local", "minio"])
def replicas(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Process, Process]]:
    """Two registry processes on one store, none of which makes its callers wait for each other."""
    monkeypatch.setenv("TERROIR_REGISTRY_MAX_PARALLEL_PUBLISHES", str(WRITERS))
    if request.param == "minio":
        server = request.getfixturevalue("minio")
        for name, value in server.settings("registry", server.location()).items():
            monkeypatch.setenv(name, value)
    sources = {"tiny": str(write_base_folder(tmp_path / "base"))}
    with ExitStack() as stack:
        first, second = (stack.enter_context(registry_process(tmp_path / "data", sources)) for _ in range(2))
        yield first, second


def race(act: Callable[[int], Any]) -> list[Any]:
    """What each writer gets, or the TerroirError that it is refused with; all are let go at once."""
    start = Barrier(WRITERS)

    def run(writer: int) -> Any:
        start.wait()
        try:
            return act(writer)
        except grpc.RpcError as error:
            return error_from_rpc(error)

    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(run, range(WRITERS)))


def publish(process: Process, data: bytes, request_id: str) -> pb.AdapterVersion:
    first = header(data)
    first.header.request_id = request_id
    return process.api.PublishVersion(iter([first, pb.PublishVersionRequest(chunk=data)]), timeout=_SECONDS)


def wish(number: int, reason: str, etag: str) -> pb.SetAliasRequest:
    return pb.SetAliasRequest(
        adapter=ADAPTER, alias=ALIAS, version=f"{ADAPTER}/versions/{number}", reason=reason, etag=etag,
        request_id=str(uuid.uuid4()),
    )  # fmt: skip


def events(process: Process) -> list[pb.AuditEvent]:
    """All of the audit trail, newest first."""
    found: list[pb.AuditEvent] = []
    token = ""
    while True:
        request = pb.ListAuditEventsRequest(adapter=ADAPTER, page_size=200, page_token=token)
        page = process.api.ListAuditEvents(request, timeout=_SECONDS)
        found.extend(page.events)
        if not (token := page.next_page_token):
            return found


def versions(process: Process) -> dict[str, str]:
    """Digest of the upload by name, of every listed version."""
    found: dict[str, str] = {}
    token = ""
    while True:
        request = pb.ListVersionsRequest(adapter=ADAPTER, page_size=200, page_token=token)
        page = process.api.ListVersions(request, timeout=_SECONDS)
        found.update({version.name: version.upload_digest for version in page.versions})
        if not (token := page.next_page_token):
            return found


def test_each_number_and_each_move_has_one_winner_and_the_history_is_complete(
    replicas: tuple[Process, Process],
) -> None:
    files = [adapter_bytes(rank=1, seed=seed) for seed in range(WRITERS)]
    digests = [hashlib.sha256(data).hexdigest() for data in files]

    def publish_one(operations: list[str], writer: int) -> pb.AdapterVersion:
        return publish(replicas[writer % 2], files[writer], operations[writer])

    def move_one(wishes: list[pb.SetAliasRequest], writer: int) -> object:
        return replicas[writer % 2].api.SetAlias(wishes[writer], timeout=_SECONDS)

    published: dict[str, str] = {}
    winners: list[pb.Alias] = []
    for round_ in range(ROUNDS):
        operations = [str(uuid.uuid4()) for _ in range(WRITERS)]
        answers = race(partial(publish_one, operations))
        made = [answer for answer in answers if isinstance(answer, pb.AdapterVersion)]
        assert len(made) == WRITERS, answers
        numbers = range(WRITERS * round_ + 1, WRITERS * (round_ + 1) + 1)
        assert {version.name for version in made} == {f"{ADAPTER}/versions/{number}" for number in numbers}
        published.update({version.name: digest for version, digest in zip(made, digests, strict=True)})

        again = round_ % WRITERS  # a retry that lands at the other replica
        assert publish(replicas[(again + 1) % 2], files[again], operations[again]) == made[again]

        etag = winners[-1].etag if winners else replicas[0].api.SetAlias(wish(1, "begin", "")).etag
        wishes = [wish(number, f"round {round_}, writer {writer}", etag) for writer, number in enumerate(numbers)]
        moved = race(partial(move_one, wishes))
        (winner,) = [writer for writer, answer in enumerate(moved) if isinstance(answer, pb.Alias)]
        refusals = {(error.code, error.reason) for error in moved if isinstance(error, TerroirError)}
        assert refusals == {("ABORTED", "STORE_ETAG_MISMATCH")}
        assert replicas[(winner + 1) % 2].api.SetAlias(wishes[winner], timeout=_SECONDS) == moved[winner]
        winners.append(moved[winner])

    for replica in replicas:
        until = time.monotonic() + LAG_SECONDS
        while versions(replica) != published and time.monotonic() < until:
            time.sleep(0.05)
        assert versions(replica) == published
        told = events(replica)
        moves = [event for event in reversed(told) if event.action == "set_alias"]
        assert [event.reason for event in moves] == ["begin", *(winner.reason for winner in winners)]
        assert [event.before for event in moves[1:]] == [event.after for event in moves[:-1]]
        named = [event.name for event in told if event.action == "publish"]
        assert len(named) == len(set(named)) == len(published)
        assert len(told) == len(moves) + len(named)


def test_changes_that_do_not_contradict_each_other_are_all_kept(replicas: tuple[Process, Process]) -> None:
    """Without an etag nobody is refused: each writer moves an alias of its own, or deprecates a version of its own."""
    for seed in range(WRITERS):
        publish(replicas[0], adapter_bytes(rank=1, seed=seed), f"publish {seed}")
    rounds = max(1, ROUNDS // 4)

    def change(round_: int, writer: int) -> object:
        api, number = replicas[writer % 2].api, writer + 1
        if writer % 4:
            request = wish(number, f"round {round_}", "")
            request.alias = f"of-{writer}"
            return api.SetAlias(request, timeout=_SECONDS)
        return api.DeprecateVersion(
            pb.DeprecateVersionRequest(
                name=f"{ADAPTER}/versions/{number}", reason=f"round {round_}", request_id=f"{writer} {round_}"
            ),
            timeout=_SECONDS,
        )

    for round_ in range(rounds):
        answers = race(partial(change, round_))
        assert not [answer for answer in answers if isinstance(answer, TerroirError)]

    last = f"round {rounds - 1}"
    deprecating = [writer for writer in range(WRITERS) if writer % 4 == 0]
    for replica in replicas:
        told = events(replica)
        assert len(told) == WRITERS + WRITERS * rounds
        newest = {event.name: event.reason for event in reversed(told) if event.action != "publish"}
        assert set(newest.values()) == {last}
        for writer in range(WRITERS):
            name = f"{ADAPTER}/versions/{writer + 1}"
            asked = name if writer in deprecating else f"{ADAPTER}@of-{writer}"
            found = replica.api.GetVersion(pb.GetVersionRequest(name=asked, strong=True), timeout=_SECONDS)
            assert (found.name, found.HasField("deprecation")) == (name, writer in deprecating)
