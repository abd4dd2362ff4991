"""The protocol of sequenced documents: once per operation, whatever fails."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from terroir.common.clock import FixedClock
from terroir.store.documents import MUST_NOT_EXIST, Collection, Document, DocumentSequence
from terroir.store.errors import (
    CorruptObject,
    EtagMismatch,
    InvalidKey,
    NotFound,
    OperationConflict,
    StoreUnavailable,
)
from terroir.store.interface import ObjectStore
from terroir.store.obstore_driver import MemoryStore
from tests.unit.store.faulty_store import Fault, FaultyStore, Plan

CLOCK = FixedClock(datetime(2026, 9, 1, 12, tzinfo=UTC))


def sequence_on(store: ObjectStore) -> DocumentSequence:
    return DocumentSequence(store, "log", CLOCK)


def numbers(store: ObjectStore) -> list[int]:
    return [document.body["n"] for document in sequence_on(store).history()]


def test_a_document_tells_its_number_time_and_operation() -> None:
    document = sequence_on(MemoryStore()).append({"n": (1, 2)}, op_id="op")
    assert (document.number, document.op_id, document.body) == (1, "op", {"n": [1, 2]})
    assert document.created_at == "2026-09-01T12:00:00.000+00:00"


def test_a_repeat_returns_the_first_result_even_long_after() -> None:
    store = MemoryStore()
    first = sequence_on(store).append({"n": 0}, op_id="first", expected_etag=MUST_NOT_EXIST)
    for n in range(1, 20):
        sequence_on(store).append({"n": n}, op_id=f"op-{n}")
    assert sequence_on(store).append({"n": 0}, op_id="first", expected_etag=MUST_NOT_EXIST) == first
    assert numbers(store) == list(range(20))


def test_an_op_id_with_another_request_is_refused_and_nothing_written() -> None:
    store = MemoryStore()
    sequence_on(store).append({"n": 0}, op_id="op")
    with pytest.raises(OperationConflict, match="another request") as caught:
        sequence_on(store).append({"n": 1}, op_id="op")
    assert caught.value.key == "log"
    assert numbers(store) == [0]


@pytest.mark.parametrize(
    ("operation", "key_part"),
    [("get", ".json"), ("get", "OPS"), ("get", "HEAD"), ("create", ".json"), ("create", "OPS"), ("put", "HEAD")],
)
@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_whatever_request_fails_repeating_the_append_writes_it_once(
    operation: str, key_part: str, fault: Fault, at: int
) -> None:
    store = FaultyStore(MemoryStore(), Plan(operation, at, fault, key_part))
    for n in range(4):
        try:
            sequence_on(store).append({"n": n}, op_id=f"op-{n}")
        except StoreUnavailable:
            sequence_on(store).append({"n": n}, op_id=f"op-{n}")
    assert store.struck
    assert numbers(store) == [0, 1, 2, 3]
    for n in range(4):
        assert sequence_on(store).append({"n": n}, op_id=f"op-{n}").number == n + 1
    assert numbers(store) == [0, 1, 2, 3]


def test_a_create_that_succeeded_but_looks_like_a_conflict_is_its_own_result() -> None:
    store = FaultyStore(MemoryStore(), Plan("create", 1, Fault.REPEATED, ".json"))
    document = sequence_on(store).append({"n": 0}, op_id="op", expected_etag=MUST_NOT_EXIST)
    assert store.struck
    assert sequence_on(store).head() == document


def test_a_lost_marker_write_does_not_fail_the_append_and_the_next_writer_makes_up_for_it() -> None:
    store = FaultyStore(MemoryStore(), Plan("create", 1, Fault.LOST_REQUEST, "OPS"))
    first = sequence_on(store).append({"n": 0}, op_id="first")
    assert not store.exists("log/HEAD"), "HEAD moved past a document without a marker"
    second = sequence_on(store).append({"n": 1}, op_id="second")
    assert store.get("log/HEAD").decode() == second.etag
    assert sequence_on(store).append({"n": 0}, op_id="first") == first


HINTS = [
    None,
    b"",
    b"garbage",
    b"\xff\xfe",
    b"99-" + b"0" * 32,
    b"2-" + b"0" * 32,
    b"0-" + b"0" * 32,
    b"1",
    b"9" * 5000,
]


@pytest.mark.parametrize("hint", HINTS)
def test_a_missing_or_senseless_hint_changes_nothing_but_speed(hint: bytes | None) -> None:
    store = MemoryStore()
    for n in range(3):
        sequence_on(store).append({"n": n}, op_id=f"op-{n}")
    for key in ("log/HEAD", *store.list("log/OPS")):  # no hint that can be believed promises any marker
        store.delete(key)
    if hint is not None:
        store.put("log/HEAD", hint)
    assert sequence_on(store).head().number == 3
    assert sequence_on(store).append({"n": 1}, op_id="op-1").number == 2
    assert sequence_on(store).append({"n": 3}, op_id="op-3").number == 4
    assert numbers(store) == [0, 1, 2, 3]


def test_a_lagging_hint_is_read_past() -> None:
    store = MemoryStore()
    first = sequence_on(store).append({"n": 0}, op_id="op-0")
    for n in range(1, 4):
        sequence_on(store).append({"n": n}, op_id=f"op-{n}")
    store.put("log/HEAD", first.etag.encode())
    assert sequence_on(store).head().body == {"n": 3}


@pytest.mark.parametrize("marker", [b"2", b"7", b"0", b"", b"garbage"])
def test_a_marker_that_lies_is_not_believed(marker: bytes) -> None:
    store = MemoryStore()
    for n in range(3):
        sequence_on(store).append({"n": n}, op_id=f"op-{n}")
    truthful = next(key for key in store.list("log/OPS") if store.get(key) == b"1")
    store.put(truthful, marker)
    assert sequence_on(store).append({"n": 0}, op_id="op-0").number == 1
    assert numbers(store) == [0, 1, 2]


def test_the_expected_etag_must_be_the_heads() -> None:
    store = MemoryStore()
    with pytest.raises(EtagMismatch):
        sequence_on(store).append({"n": 0}, op_id="a", expected_etag="1-of-somebody")
    first = sequence_on(store).append({"n": 0}, op_id="b", expected_etag=MUST_NOT_EXIST)
    with pytest.raises(EtagMismatch):
        sequence_on(store).append({"n": 1}, op_id="c", expected_etag=MUST_NOT_EXIST)
    second = sequence_on(store).append({"n": 1}, op_id="d", expected_etag=first.etag)
    with pytest.raises(EtagMismatch, match="read it again"):
        sequence_on(store).append({"n": 2}, op_id="e", expected_etag=first.etag)
    assert sequence_on(store).head() == second


class RivalStore(FaultyStore):
    """Lets another writer in just before the first create of a document."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._rival: DocumentSequence | None = sequence_on(inner)

    def create(self, key: str, body: bytes) -> None:
        if self._rival is not None:
            rival, self._rival = self._rival, None
            rival.append({"n": 100}, op_id="rival")
        super().create(key, body)


def test_the_loser_of_a_race_builds_again_on_the_winners_document() -> None:
    store = MemoryStore()
    seen: list[Document | None] = []

    def build(head: Document | None) -> Mapping[str, Any]:
        seen.append(head)
        return {"n": head.body["n"] + 1 if head else 0}

    document = sequence_on(RivalStore(store)).append_with(build, op_id="op", request={})
    assert (document.number, document.body) == (2, {"n": 101})
    assert [head.op_id if head else None for head in seen] == [None, "rival"]


def test_the_loser_of_a_race_that_expected_an_etag_is_told() -> None:
    store = MemoryStore()
    with pytest.raises(EtagMismatch):
        sequence_on(RivalStore(store)).append({"n": 0}, op_id="op", expected_etag=MUST_NOT_EXIST)
    assert numbers(store) == [100]


class OvertakenStore(FaultyStore):
    """Lets another replica finish the same operation, and a further one, after the writer's first read."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._replica: DocumentSequence | None = sequence_on(inner)

    def get(self, key: str) -> bytes:
        try:
            return super().get(key)
        finally:
            if self._replica is not None:
                replica, self._replica = self._replica, None
                replica.append({"n": 1}, op_id="op")
                replica.append({"n": 2}, op_id="other")


def test_a_repeat_that_another_replica_overtakes_still_finds_the_first_result() -> None:
    """HEAD read after the marker would have moved past the document that the marker was missing for."""
    store = MemoryStore()
    sequence_on(store).append({"n": 0}, op_id="first")
    assert sequence_on(OvertakenStore(store)).append({"n": 1}, op_id="op").number == 2
    assert numbers(store) == [0, 1, 2]


def test_what_build_raises_leaves_the_sequence_as_it_was() -> None:
    store = MemoryStore()

    def build(_: Document | None) -> Mapping[str, Any]:
        raise LookupError("no such alias")

    with pytest.raises(LookupError):
        sequence_on(store).append_with(build, op_id="op", request={})
    assert list(store.list("")) == []


def test_a_build_that_fails_on_what_a_repeat_wrote_meanwhile_gets_the_repeats_result() -> None:
    """Such as a removal whose state is newer than the head that was read: what it removes is gone already."""
    sequence = sequence_on(MemoryStore())
    sequence.append({"there": True}, op_id="put")
    repeats: list[Document] = []

    def build(head: Document | None) -> Mapping[str, Any]:
        if not repeats:
            repeats.append(sequence.append_with(lambda _: {"there": False}, op_id="remove", request={}))
        newest = list(sequence.history())[-1]
        if not newest.body["there"]:
            raise LookupError("it is not there")
        return {"there": False}

    assert sequence.append_with(build, op_id="remove", request={}) == repeats[0]
    with pytest.raises(LookupError):
        sequence.append_with(build, op_id="another", request={})
    assert [document.op_id for document in sequence.history()] == ["put", "remove"]


def test_a_damaged_document_is_named() -> None:
    store = MemoryStore()
    document = sequence_on(store).append({"n": 0}, op_id="op")
    key = "log/00000000000000000001.json"
    moved = json.loads(store.get(key)) | {"number": 2}
    for damage in (b"", b"{", b"[]", b"null", b"{}", json.dumps(moved).encode()):
        store.put(key, damage)
        with pytest.raises(CorruptObject, match="restore") as caught:
            sequence_on(store).get(document.number)
        assert caught.value.key == key


@pytest.mark.parametrize("number", [-1, 0, 2, 10**30])
def test_a_number_without_a_document_is_not_found(number: int) -> None:
    store = MemoryStore()
    sequence_on(store).append({"n": 0}, op_id="op")
    with pytest.raises(NotFound, match=f"no document {number} "):
        sequence_on(store).get(number)


def test_what_json_can_not_hold_is_refused_before_anything_is_written() -> None:
    store = MemoryStore()
    for body in ({"n": float("nan")}, {"n": object()}, {"n": b"bytes"}):
        with pytest.raises((ValueError, TypeError)):
            sequence_on(store).append(body, op_id="op")
    with pytest.raises(ValueError, match="op_id"):
        sequence_on(store).append({}, op_id="")
    assert list(store.list("")) == []


class BlindStore(FaultyStore):
    """Says that every document exists and shows none: a store that can't be worked with."""

    def create(self, key: str, body: bytes) -> None:
        self._inner.create(f"elsewhere/{key}", body)


def test_a_store_that_never_shows_the_winner_is_given_up() -> None:
    store = BlindStore(MemoryStore())
    sequence_on(store).append({"n": 0}, op_id="op")
    with pytest.raises(StoreUnavailable) as caught:
        sequence_on(store).append({"n": 0}, op_id="op")
    assert caught.value.reason == "STORE_INCONSISTENT"


def test_a_child_whose_first_write_failed_is_not_listed_until_it_succeeds() -> None:
    store = FaultyStore(MemoryStore(), Plan("create", 1, Fault.LOST_REQUEST, "adapters/jiangnan/0"))
    collection = Collection(store, "adapters", CLOCK)
    with pytest.raises(StoreUnavailable):
        collection.sequence("jiangnan").append({}, op_id="op")
    assert collection.ids() == []
    collection.sequence("jiangnan").append({}, op_id="op")
    assert collection.ids() == ["jiangnan"]
    assert len(list(DocumentSequence(store, "adapters/INDEX", CLOCK).history())) == 1


def test_a_collection_reads_only_what_is_new() -> None:
    store = FaultyStore(MemoryStore())
    collection = Collection(store, "adapters", CLOCK)
    collection.sequence("a").append({}, op_id="op")
    assert collection.ids() == ["a"]
    store.plan(Plan("get", 2, Fault.LOST_REQUEST))
    store.plan(Plan("exists", 1, Fault.LOST_REQUEST))
    store.plan(Plan("list", 1, Fault.LOST_REQUEST))
    assert collection.ids() == ["a"]
    assert not store.struck


@pytest.mark.parametrize("child_id", ["HEAD", "INDEX", "OPS", "", "..", "a/b"])
def test_ids_that_would_meet_the_collections_own_keys_are_refused(child_id: str) -> None:
    with pytest.raises(InvalidKey):
        Collection(MemoryStore(), "adapters", CLOCK).sequence(child_id)


def test_errors_keep_their_attributes_across_processes() -> None:
    error = pickle.loads(pickle.dumps(StoreUnavailable("full", "k", "STORE_DISK_FULL")))
    assert (str(error), error.key, error.reason) == ("full", "k", "STORE_DISK_FULL")
