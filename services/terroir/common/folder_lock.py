"""Who may use a data folder: one supervisor at a time, and only after the processes of the one before have ended."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Final

from terroir.common.errors import FailedPrecondition

_NOT_WRITABLE: Final = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


class FolderLock:
    """Two advisory locks (flock) below `run/`: the supervisor's own, and one that its children hold with it.

    A killed supervisor loses its lock at once while its children still drain. They inherit the second lock, so the next
    supervisor waits for the last of them instead of meeting them at the same ports and files.
    """

    def __init__(self, data_dir: Path, *, drain_seconds: float) -> None:
        self._data_dir = data_dir
        self._drain_seconds = drain_seconds
        self._own: int | None = None
        self._shared: int | None = None

    @property
    def held(self) -> bool:
        """Whether `take` has succeeded and `release` was not called since."""
        return self._own is not None and self._shared is not None

    def inherited(self) -> tuple[int, ...]:
        """File descriptors that every child must be given."""
        return () if self._shared is None else (self._shared,)

    def take(self) -> None:
        """Claim the folder, creating it if need be.

        Raises FailedPrecondition: DATA_DIR_READ_ONLY, DATA_DIR_UNUSABLE, DATA_DIR_IN_USE.
        """
        run = self._data_dir / "run"
        try:
            run.mkdir(parents=True, exist_ok=True)
            self._own = os.open(run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._shared = os.open(run / "children.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self.release()
            raise FailedPrecondition(
                f"cannot write to {self._data_dir} ({error.strerror}); give a writable folder with --data-dir",
                reason="DATA_DIR_READ_ONLY" if error.errno in _NOT_WRITABLE else "DATA_DIR_UNUSABLE",
            ) from error
        self._lock(self._own, 0.0, "another terroir runs")
        self._lock(self._shared, self._drain_seconds, "processes of the terroir before still run")

    def release(self) -> None:
        """Give the folder back; children that still run keep their part. Safe to call twice."""
        for descriptor in (self._own, self._shared):
            if descriptor is not None:
                os.close(descriptor)
        self._own = self._shared = None

    def _lock(self, descriptor: int, patience_seconds: float, finding: str) -> None:
        until = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(0.05)
                    continue
                self.release()
                raise FailedPrecondition(
                    f"{finding} on {self._data_dir}; stop it or give this one another --data-dir",
                    reason="DATA_DIR_IN_USE",
                ) from None
            return
