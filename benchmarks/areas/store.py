"""What durability and sequencing cost: our local store against the library beneath it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from obstore.store import LocalStore as ObstoreLocal

from benchmarks.bench import Bench
from benchmarks.rows import Row
from benchmarks.timing import Pair, in_turns
from terroir.common.clock import SystemClock
from terroir.store.blobs import Blobs
from terroir.store.documents import DocumentSequence
from terroir.store.local import LocalStore

_DOCUMENT = {"state": "running", "note": "x" * 400, "step": 0}
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


def _append(bench: Bench, store: LocalStore, prefix: str, peer: _Raw) -> Pair:
    sequence = DocumentSequence(store, prefix, SystemClock())
    first = sequence.append(_DOCUMENT, op_id="first")
    body = store.get(f"{prefix}/{first.number:020d}.json")
    return in_turns(
        bench.count(300, 20),
        lambda turn: sequence.append({**_DOCUMENT, "step": turn}, op_id=f"operation-{turn}"),
        lambda turn: peer.put(f"documents/{turn:020d}.json", body),
    )


def _create(store: LocalStore, peer: _Raw, contents: list[bytes], folder: str) -> Pair:
    blobs = Blobs(store)
    return in_turns(
        len(contents),
        lambda turn: blobs.put(contents[turn]),
        lambda turn: peer.put(f"{folder}/{turn}", contents[turn]),
    )
