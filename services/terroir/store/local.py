"""Objects as files below one folder."""

from __future__ import annotations

import errno
import os
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Literal

from obstore.store import LocalStore as ObstoreLocal

from terroir.store.errors import InvalidKey
from terroir.store.interface import ensure_key
from terroir.store.obstore_driver import ObstoreDriver

_STAGING = ".staging"
"""Begins with a dot, which no key may, so nothing in it can be read or listed as an object."""

_ABANDONED_AFTER_SECONDS = 3600.0
"""No write takes an hour: an older staging file belongs to a process that was killed."""


class LocalStore(ObstoreDriver):
    """A store in a local folder: reads go through obstore, writes are our own.

    obstore (0.12) never calls fsync, so that a power cut could leave an empty object at a create-only key for good, and
    it hides the operating system's error.

    A body is written and synced under `.staging/`, then hard-linked to its key: the link is atomic, fails if the
    key exists, and only ever shows whole bodies, on any number of processes. Needs a file system with hard links.
    """

    def __init__(self, root: Path) -> None:
        """Open, and if needed make, the folder. Opening an existing one takes no right to write."""
        self._root = root.absolute()
        self._place = f"the data folder {self._root}"
        with self._translated("", "open"):
            self._root.mkdir(parents=True, exist_ok=True)
        super().__init__(ObstoreLocal(prefix=self._root), self._place)
        self._remove_abandoned()

    def ensure_writable(self) -> None:
        """Raise `StoreUnavailable` now rather than at the first write; for servers, at their start."""
        with self._translated("", "write"):
            self._stage(b"probe", durable=True).unlink()

    def _write(self, key: str, body: bytes, mode: Literal["create", "overwrite"]) -> None:
        path = self._root / ensure_key(key)
        with self._translated(key, "write"):
            if path.is_dir():
                raise InvalidKey(f"{key} is a folder of other objects in {self._place} (choose another name)", key)
            if mode == "create" and path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))  # spares writing a body in vain
            self._make_folder(path.parent)
            staged = self._stage(body, durable=mode == "create")
            try:
                if mode == "create":
                    os.link(staged, path)
                    _sync_folder(path.parent)
                else:
                    staged.replace(path)
            finally:
                with suppress(OSError):  # replaced, or swept up at the next start; the outcome is already decided
                    staged.unlink(missing_ok=True)

    def _stage(self, body: bytes, *, durable: bool) -> Path:
        folder = self._root / _STAGING
        self._make_folder(folder)
        path = folder / uuid.uuid4().hex
        try:
            with path.open("xb") as file:
                file.write(body)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
        except BaseException:  # Ctrl-C too: a full disk must get its space back at once
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise
        return path

    def _make_folder(self, folder: Path) -> None:
        """Make `folder` so that it outlives a power cut: an object is only as durable as the folders above it."""
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        try:
            folder.mkdir(exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error
        _sync_folder(folder.parent)

    def _remove_abandoned(self) -> None:
        limit = time.time() - _ABANDONED_AFTER_SECONDS
        with suppress(OSError):  # a reader without the right to write, or another process sweeping too
            for path in (self._root / _STAGING).iterdir():
                if path.stat().st_mtime < limit:
                    path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
