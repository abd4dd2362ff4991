"""What operators see of a store: its time, what it did not answer, and what was damaged in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from terroir.common.clock import FixedClock
from terroir.store.blobs import Blobs
from terroir.store.deadline import set_deadline
from terroir.store.documents import DocumentSequence
from terroir.store.errors import AlreadyExists, CorruptBlob, CorruptObject, NotFound, StoreUnavailable
from terroir.store.interface import ObjectStore
from terroir.store.journal import Journal
from terroir.store.local import LocalStore
from terroir.store.metrics import StoreMetrics
from terroir.store.obstore_driver import MemoryStore
from tests.unit.store.faulty_store import FaultyStore

Read = Callable[..., float | None]


def watched(store: ObjectStore) -> Read:
    registry = CollectorRegistry()
    StoreMetrics(registry).watch(store)
    return registry.get_sample_value


def requests(read: Read, operation: str) -> float | None:
    return read("terroir_store_request_seconds_count", {"operation": operation})


@pytest.mark.parametrize("make", [lambda _: MemoryStore(), LocalStore], ids=["memory", "folder"])
def test_every_request_is_counted_and_no_object_is_an_answer(
    make: Callable[[Path], ObjectStore], tmp_path: Path
) -> None:
    store = make(tmp_path / "store")
    read = watched(store)
    store.create("a/b", b"x")
    with pytest.raises(AlreadyExists):
        store.create("a/b", b"y")
    with pytest.raises(NotFound):
        store.get("a/c")
    store.get("a/b")
    list(store.list(""))
    store.delete("a/b")
    assert [requests(read, verb) for verb in ("write", "read", "list", "delete")] == [2, 2, 1, 1]
    assert read("terroir_store_errors_total", {"operation": "read", "reason": "STORE_IO_ERROR"}) is None
    assert (read("terroir_store_last_answer_timestamp_seconds") or 0) > 1e9


def test_a_store_that_cannot_be_read_is_an_error_with_its_reason(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    read = watched(store)
    (tmp_path / "store" / "loop").symlink_to("loop")
    with pytest.raises(StoreUnavailable) as refused:
        store.get("loop")
    labels = {"operation": "read", "reason": refused.value.reason}
    assert read("terroir_store_errors_total", labels) == 1
    assert requests(read, "read") == 1
    assert read("terroir_store_last_answer_timestamp_seconds") == 0


def test_a_request_that_was_never_made_is_not_counted() -> None:
    store = MemoryStore()
    read = watched(store)
    set_deadline(-1)
    try:
        with pytest.raises(StoreUnavailable):
            store.get("a")
    finally:
        set_deadline(None)
    assert requests(read, "read") == 0


def damage_a_blob(store: ObjectStore) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    store.put(f"blobs/sha256/{digest[:2]}/{digest}", b"wrong")
    with pytest.raises(CorruptBlob):
        Blobs(store).get(digest)


def damage_a_streamed_blob(store: ObjectStore) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    store.put(f"blobs/sha256/{digest[:2]}/{digest}", b"wrong")
    with pytest.raises(CorruptBlob):
        list(Blobs(store).iter_chunks(digest, 2))


def damage_a_document(store: ObjectStore) -> None:
    sequence = DocumentSequence(store, "documents/one", FixedClock())
    sequence.append({"a": 1}, op_id="first")
    store.put(f"documents/one/{1:020d}.json", b"{}")
    with pytest.raises(CorruptObject):
        sequence.get(1)


def damage_the_journal(store: ObjectStore) -> None:
    journal = Journal(store, "journal", FixedClock())
    store.put(f"journal/{1:020d}.json", b"[]")
    with pytest.raises(CorruptObject):
        journal.find(1)


@pytest.mark.parametrize("damage", [damage_a_blob, damage_a_streamed_blob, damage_a_document, damage_the_journal])
def test_damage_is_counted_wherever_it_is_read(damage: Callable[[ObjectStore], None]) -> None:
    store = MemoryStore()
    read = watched(store)
    damage(store)
    assert read("terroir_store_damaged_objects_total") == 1


def test_a_store_that_cannot_be_observed_serves_as_ever() -> None:
    store = FaultyStore(MemoryStore())
    read = watched(store)
    damage_a_blob(store)
    assert read("terroir_store_damaged_objects_total") == 0
