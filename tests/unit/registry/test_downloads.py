"""Files that take several requests to the store and more messages than that."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from terroir.registry.downloads import CHUNK_BYTES, READ_BYTES, AdapterFormat, Downloads
from terroir.registry.names import VersionRef
from terroir.store.blobs import Blobs
from terroir.store.errors import CorruptObject
from terroir.store.opening import open_store


def opened(folder: Path, size: int) -> tuple[Any, bytes, Path]:
    """A download of so many bytes, they themselves, and where they lie."""
    blobs, data = Blobs(open_store(folder)), bytes(range(256)) * (size // 256)
    digest = blobs.put(data)
    version = SimpleNamespace(
        adapter="a", number=1, manifest=SimpleNamespace(kohya=SimpleNamespace(digest=digest, size_bytes=len(data)))
    )
    adapters: Any = SimpleNamespace(resolve=lambda _reference: version)
    bases: Any = None
    reference: VersionRef = SimpleNamespace()  # type: ignore[assignment]
    download = Downloads(adapters, bases, blobs).open(reference, AdapterFormat.KOHYA)
    (path,) = (path for path in folder.rglob(digest) if path.is_file())
    return download, data, path


def test_messages_are_small_though_the_store_is_read_in_larger_parts(tmp_path: Path) -> None:
    download, data, _ = opened(tmp_path, READ_BYTES + CHUNK_BYTES + 256)
    pieces = list(download.chunks)
    assert [len(piece) for piece in pieces] == [CHUNK_BYTES] * 9 + [256]
    assert b"".join(pieces) == data


def test_damage_in_the_first_byte_is_told_before_the_last_piece(tmp_path: Path) -> None:
    download, data, path = opened(tmp_path, 2 * READ_BYTES)
    path.chmod(0o644)
    path.write_bytes(b"\xff" + data[1:])
    received = 0
    with pytest.raises(CorruptObject):
        for piece in download.chunks:
            received += len(piece)
    assert received < len(data)
