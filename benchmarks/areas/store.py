"""What durability and sequencing cost, on a local folder and on MinIO, against the library beneath."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from obstore.store import LocalStore as ObstoreLocal

from benchmarks.bench import Bench
from benchmarks.minio_place import NOT_BUILT, minio_server
from benchmarks.peers.bare_s3 import BareS3
from benchmarks.rows import Row
from benchmarks.timing import Pair, in_turns
from terroir.common.clock import SystemClock
from terroir.store.blobs import Blobs
from terroir.store.documents import DocumentSequence
from terroir.store.interface import ObjectStore
from terroir.store.local import LocalStore
from terroir.store.s3 import S3Store

_DOCUMENT = {"state": "running", "note": "x" * 400, "step": 0}
_ADAPTER_BYTES = 6 * 1024 * 1024
_BARE = "bare obstore on the same MinIO"
_BLOBS = ((4 * 1024, "4 KiB"), (1024 * 1024, "1 MiB"))


class _Raw:
    """obstore's own local store, create-only puts; it never syncs, so `synced` does that after each put."""

    def __init__(self, folder: Path, *, synced: bool) -> None:
        folder.mkdir()
        self._folder = folder
        self._store = ObstoreLocal(prefix=folder)
        self._synced = synced
        self.name = f"obstore LocalStore put, {'then fsync of file and folder' if synced else 'never synced'}"

    def put(self, key: str, body: bytes) -> None:
        """Create one object."""
        self._store.put(key, body, mode="create")
        if self._synced:
            for path in (self._folder / key, (self._folder / key).parent):
                descriptor = os.open(path, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)


def rows(bench: Bench) -> Iterator[Row]:
    """Medians; our store syncs file and folder of what is created."""
    store = LocalStore(bench.work / "ours")
    for synced in (False, True):
        peer = _Raw(bench.work / f"peer-{synced}", synced=synced)
        pair = _append(bench, store, f"documents-{synced}", peer)
        yield bench.row("document append, p50", "ms", pair.ours * 1e3, peer=pair.peer * 1e3, peer_name=peer.name)
        for size, name in _BLOBS:
            pair = _create(store, peer, [os.urandom(size) for _ in range(bench.count(100, 10))], name)
            yield bench.row(
                f"blob create, {name}, p50", "ms", pair.ours * 1e3, peer=pair.peer * 1e3, peer_name=peer.name
            )
    yield from _on_minio(bench)


def _on_minio(bench: Bench) -> Iterator[Row]:
    with minio_server(bench.work / "minio") as server:
        figures = {
            "create of a 6 MB blob": _create_adapters,
            "create of a small object": _create_small,
            "read of a small object": _read_small,
            "document append": _append_documents,
        }
        for figure, measure in figures.items():
            name = f"{figure} on MinIO, p50"
            if server is None:
                yield bench.row(name, "ms", None, reason=NOT_BUILT)
                continue
            location = server.location()
            pair = measure(bench, S3Store(location), BareS3(location))
            yield bench.row(name, "ms", pair.ours * 1e3, peer=pair.peer * 1e3, peer_name=_BARE)


def _create_adapters(bench: Bench, store: S3Store, peer: BareS3) -> Pair:
    return _create(store, peer, [os.urandom(_ADAPTER_BYTES) for _ in range(bench.count(40, 4))], "peer")


def _create_small(bench: Bench, store: S3Store, peer: BareS3) -> Pair:
    body = os.urandom(500)
    return in_turns(
        bench.count(300, 10),
        lambda turn: store.create(f"ours/{turn}", body),
        lambda turn: peer.put(f"peer/{turn}", body),
    )


def _read_small(bench: Bench, store: S3Store, peer: BareS3) -> Pair:
    store.create("document", os.urandom(500))
    return in_turns(bench.count(500, 10), lambda _: store.get("document"), lambda _: peer.get("document"))


def _append_documents(bench: Bench, store: S3Store, peer: BareS3) -> Pair:
    return _append(bench, store, "documents", peer)


def _append(bench: Bench, store: ObjectStore, prefix: str, peer: _Raw | BareS3) -> Pair:
    sequence = DocumentSequence(store, prefix, SystemClock())
    first = sequence.append(_DOCUMENT, op_id="first")
    body = store.get(f"{prefix}/{first.number:020d}.json")
    return in_turns(
        bench.count(300, 20),
        lambda turn: sequence.append({**_DOCUMENT, "step": turn}, op_id=f"operation-{turn}"),
        lambda turn: peer.put(f"bare/{turn:020d}.json", body),
    )


def _create(store: ObjectStore, peer: _Raw | BareS3, contents: list[bytes], folder: str) -> Pair:
    blobs = Blobs(store)
    return in_turns(
        len(contents),
        lambda turn: blobs.put(contents[turn]),
        lambda turn: peer.put(f"{folder}/{turn}", contents[turn]),
    )
