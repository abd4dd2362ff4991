"""Blobs under faults and on a damaged disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.store.blobs import Blobs
from terroir.store.errors import CorruptBlob, InvalidKey, NotFound, StoreUnavailable
from terroir.store.local import LocalStore
from terroir.store.obstore_driver import MemoryStore
from tests.unit.store.faulty_store import Fault, FaultyStore, Plan


@given(data=st.binary(max_size=200), chunk_bytes=st.integers(1, 70))
def test_chunks_are_full_but_the_last_and_join_to_the_blob(data: bytes, chunk_bytes: int) -> None:
    blobs = Blobs(MemoryStore())
    chunks = list(blobs.iter_chunks(blobs.put(data), chunk_bytes))
    assert b"".join(chunks) == data
    assert all(len(chunk) == chunk_bytes for chunk in chunks[:-1])
    assert all(chunks)


@pytest.mark.parametrize("damage", [b"pictura", b"pict", b"", b"picture and more"])
def test_a_blob_damaged_on_disk_is_never_served_as_whole(tmp_path: Path, damage: bytes) -> None:
    blobs = Blobs(LocalStore(tmp_path))
    digest = blobs.put(b"picture")
    (tmp_path / "blobs" / "sha256" / digest[:2] / digest).write_bytes(damage)
    with pytest.raises(CorruptBlob, match="restore") as caught:
        blobs.get(digest)
    assert caught.value.digest == digest
    received: list[bytes] = []
    with pytest.raises(CorruptBlob):
        received.extend(blobs.iter_chunks(digest, 3))
    assert b"".join(received) != damage or not damage


@pytest.mark.parametrize("fault", [Fault.LOST_REQUEST, Fault.LOST_RESPONSE])
def test_a_put_whose_outcome_is_unknown_may_be_repeated(fault: Fault) -> None:
    blobs = Blobs(FaultyStore(MemoryStore(), Plan("create", 1, fault)))
    with pytest.raises(StoreUnavailable):
        blobs.put(b"picture")
    assert blobs.get(blobs.put(b"picture")) == b"picture"


def test_a_put_that_loses_the_race_against_equal_bytes_is_success() -> None:
    """REPEATED: the create itself meets the blob although it was not there a moment before."""
    store = FaultyStore(MemoryStore(), Plan("create", 1, Fault.REPEATED))
    blobs = Blobs(store)
    assert blobs.exists(blobs.put(b"picture"))
    assert store.struck


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63, "g" * 64, "a" * 64 + "\n"])
def test_what_is_no_digest_is_refused(digest: str) -> None:
    blobs = Blobs(MemoryStore())
    for read in (blobs.get, blobs.exists, blobs.size, lambda name: list(blobs.iter_chunks(name, 1))):
        with pytest.raises(InvalidKey):
            read(digest)


def test_an_unknown_blob_is_not_found() -> None:
    blobs = Blobs(MemoryStore())
    for read in (blobs.get, blobs.size, lambda name: list(blobs.iter_chunks(name, 1))):
        with pytest.raises(NotFound):
            read("a" * 64)
    assert not blobs.exists("a" * 64)


def test_chunks_of_no_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk_bytes 0"):
        next(Blobs(MemoryStore()).iter_chunks("a" * 64, 0))
