"""Adapter files by digest on the local disk; losing any of them costs only a download."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


class DiskCache:
    """One file a digest, verified whenever it is read, the oldest dropped beyond the budget. Any thread may use it."""

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self._folder = folder
        self._budget_bytes = budget_bytes

    def get(self, digest: str) -> bytes | None:
        """The file's bytes; None if it is not here or damaged (then it is removed)."""
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(data).hexdigest() != digest:
            path.unlink(missing_ok=True)
            return None
        os.utime(path)  # reading makes it the youngest
        return data

    def put(self, digest: str, data: bytes) -> None:
        """Keep a file, all of it or nothing, and drop the oldest beyond the budget."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".partial", delete=False) as file:
            file.write(data)
        Path(file.name).replace(self._path(digest))
        self._evict()

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.safetensors"

    def _evict(self) -> None:
        files = [(path.stat(), path) for path in self._folder.glob("*.safetensors")]
        excess = sum(stat.st_size for stat, _ in files) - self._budget_bytes
        for stat, path in sorted(files, key=lambda entry: entry[0].st_mtime):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= stat.st_size
