"""What every driver of the object store promises."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from terroir.common.clock import SystemClock
from terroir.store.blobs import Blobs
from terroir.store.documents import Collection, DocumentSequence
from terroir.store.errors import AlreadyExists, InvalidKey, NotFound
from terroir.store.interface import ObjectStore
from terroir.store.local import LocalStore
from terroir.store.obstore_driver import MemoryStore
from terroir.store.patient import PatientStore
from tests.tools.minio_server import MinioServer


@pytest.fixture(params=["memory", "local", "minio", "patient"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "minio":
        server: MinioServer = request.getfixturevalue("minio")
        return server.store()
    if request.param == "patient":
        return PatientStore(MemoryStore())
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path)


@pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 40_000], ids=["empty", "one byte", "10 MB"])
def test_an_object_comes_back_as_it_was_written(store: ObjectStore, body: bytes) -> None:
    store.create("a/b.json", body)
    assert store.get("a/b.json") == body
    assert store.size("a/b.json") == len(body)
    assert store.exists("a/b.json")


def test_a_create_over_an_object_fails_and_leaves_it(store: ObjectStore) -> None:
    store.create("k", b"first")
    with pytest.raises(AlreadyExists) as caught:
        store.create("k", b"second")
    assert caught.value.key == "k"
    assert store.get("k") == b"first"


def test_of_sixteen_racing_creates_one_wins(store: ObjectStore) -> None:
    for round_ in range(10):
        barrier = Barrier(16)

        def attempt(writer: int, key: str = f"race/{round_}", barrier: Barrier = barrier) -> int | None:
            barrier.wait()
            try:
                store.create(key, str(writer).encode())
            except AlreadyExists:
                return None
            return writer

        with ThreadPoolExecutor(16) as pool:
            winners = [writer for writer in pool.map(attempt, range(16)) if writer is not None]
        assert len(winners) == 1
        assert store.get(f"race/{round_}") == str(winners[0]).encode()


def test_put_replaces(store: ObjectStore) -> None:
    store.put("k", b"first, longer")
    store.put("k", b"second")
    assert store.get("k") == b"second"


def test_a_missing_object_is_not_found_by_every_read(store: ObjectStore) -> None:
    store.create("a/b", b"x")
    for key in ("nothing", "a", "a/c", "a/b/c"):
        assert not store.exists(key)
        for read in (store.get, store.size, lambda name: store.get_range(name, 0, 1)):
            with pytest.raises(NotFound) as caught:
                read(key)
            assert caught.value.key == key


def test_ranges_end_with_the_object(store: ObjectStore) -> None:
    store.create("k", b"0123456789")
    assert store.get_range("k", 2, 3) == b"234"
    assert store.get_range("k", 8, 100) == b"89"
    assert store.get_range("k", 10, 1) == b""
    assert store.get_range("k", 99, 1) == b""
    for start, length in ((-1, 1), (0, 0)):
        with pytest.raises(ValueError, match="range"):
            store.get_range("k", start, length)


def test_delete_removes_and_may_be_repeated(store: ObjectStore) -> None:
    store.create("k", b"x")
    store.delete("k")
    store.delete("k")
    assert not store.exists("k")
    store.create("k", b"y")


def test_list_gives_the_sorted_keys_below_whole_segments(store: ObjectStore) -> None:
    for key in ("b/2", "a/x/1", "b/10", "bb/1", "b/1/z"):
        store.create(key, b"")
    assert list(store.list("")) == ["a/x/1", "b/1/z", "b/10", "b/2", "bb/1"]
    assert list(store.list("b")) == list(store.list("b/")) == ["b/1/z", "b/10", "b/2"]
    assert list(store.list("none")) == []


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "/etc/passwd", "a//b", "a/", "..", "../x", "a/../../x", "a/./b", ".hidden", "a b", "a\x00", "a\n"),
        *("ü", "a\\b", "a#1", "%2e%2e/x", "-a", "x" * 201, "/".join(["x" * 200] * 6)),
    ],
)
def test_a_malformed_key_is_refused_by_every_operation(store: ObjectStore, key: str) -> None:
    for operation in (
        store.get,
        store.size,
        store.exists,
        store.delete,
        lambda name: store.get_range(name, 0, 1),
        lambda name: store.create(name, b""),
        lambda name: store.put(name, b""),
    ):
        with pytest.raises(InvalidKey):
            operation(key)
    assert list(store.list("")) == []


def test_blobs_are_named_by_their_digest_and_stored_once(store: ObjectStore) -> None:
    blobs = Blobs(store)
    digest = blobs.put(b"picture")
    assert digest == hashlib.sha256(b"picture").hexdigest() == blobs.put(b"picture")
    assert list(store.list("")) == [f"blobs/sha256/{digest[:2]}/{digest}"]
    assert blobs.get(digest) == b"picture"
    assert blobs.size(digest) == 7
    assert b"".join(blobs.iter_chunks(digest, 3)) == b"picture"


def test_documents_are_numbered_from_one_and_every_reader_sees_the_head(store: ObjectStore) -> None:
    sequence = DocumentSequence(store, "adapters/jiangnan/versions", SystemClock())
    with pytest.raises(NotFound):
        sequence.head()
    documents = [sequence.append({"n": n}, op_id=f"op-{n}") for n in range(5)]
    assert [document.number for document in documents] == [1, 2, 3, 4, 5]
    other = DocumentSequence(store, "adapters/jiangnan/versions", SystemClock())
    assert other.head() == documents[-1]
    assert list(other.history()) == documents
    assert other.get(3) == documents[2]


def test_a_collection_lists_its_children(store: ObjectStore) -> None:
    collection = Collection(store, "adapters")
    assert collection.ids() == []
    for name in ("jiangnan", "bashu"):
        collection.sequence(name).append({}, op_id="create")
    assert collection.ids() == Collection(store, "adapters").ids() == ["bashu", "jiangnan"]
