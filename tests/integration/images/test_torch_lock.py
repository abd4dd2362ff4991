"""`scripts/lock.py --torch-index`: another build of PyTorch is locked by hash from its own index."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts import lock

WHEEL = "torch-{version}+cpu-py3-none-any.whl"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """An index of one package, as PyTorch's indexes are, on loopback: its address, and the digest of its wheel."""
    pinned = re.search(r"^torch==(\S+)", (lock.FOLDER / "torch.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    version = pinned[1]
    folder = tmp_path / "index" / "torch"
    folder.mkdir(parents=True)
    wheel = folder / WHEEL.format(version=version)
    info = f"torch-{version}+cpu.dist-info"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}+cpu\n")
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    link = f'<a href="{wheel.name.replace("+", "%2B")}#sha256={digest}">{wheel.name}</a>'
    (folder / "index.html").write_text(f"<!doctype html><body>{link}</body>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "index")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", digest
    server.shutdown()
    server.server_close()
    thread.join()


def test_another_build_of_torch_is_locked_with_its_hash_and_without_its_index(
    index: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, digest = index
    folder = tmp_path / "requirements"
    folder.mkdir()
    for name in ("torch.txt", "all.txt"):
        shutil.copy(lock.FOLDER / name, folder)
    monkeypatch.setattr(lock, "FOLDER", folder)
    monkeypatch.setenv("UV_NO_CACHE", "1")
    path = lock.write_torch(url)
    text = path.read_text()
    assert path == folder / "images" / "torch.txt"
    assert re.findall(r"^(\S+)==\S+\+cpu", text, re.MULTILINE) == ["torch"]
    assert re.findall(r"--hash=sha256:(\w+)", text) == [digest]
    assert url not in text
    assert lock.recorded_digest(path) == lock.inputs_digest()
