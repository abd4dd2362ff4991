"""Adapter files by digest on the local disk; losing any of them costs only a download."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from threading import Lock

import structlog

from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.inference.adapters.tiers import Tier

_SUFFIX = ".safetensors"
_PARTIAL = ".partial"
_log = structlog.get_logger()


class DiskCache:
    """One file a digest, verified whenever it is read, the longest unread dropped beyond the budget.

    Any thread may use it. Its folder may be shared with another server, which then has a budget of its own. A disk that
    can't be read or written costs downloads and nothing else, so reading never raises.
    """

    def __init__(self, folder: Path, budget_bytes: int, metrics: TierMetrics) -> None:
        self._folder = folder
        self._budget_bytes = budget_bytes
        self._metrics = metrics
        self._lock = Lock()
        self._used_bytes = 0
        self._sizes: OrderedDict[str, int] = OrderedDict()
        """By digest, longest unread first."""
        metrics.budget(Tier.DISK, budget_bytes)

    @property
    def used_bytes(self) -> int:
        """Bytes of the files that it knows."""
        return self._used_bytes

    def open(self) -> None:
        """Take stock of what an earlier process left and remove what it had not finished; call once, at start."""
        try:
            for partial in self._folder.glob(f"*{_PARTIAL}"):
                partial.unlink(missing_ok=True)
            found = sorted((path.stat().st_mtime, path) for path in self._folder.glob(f"*{_SUFFIX}"))
            with self._lock:
                for _, path in found:
                    self._count(path.stem, path.stat().st_size)
                self._evict()
        except OSError as error:
            _log.warning("disk cache not readable", folder=str(self._folder), error=str(error))

    def get(self, digest: str) -> bytes | None:
        """The file's bytes; None if it is not here, can't be read or is damaged (then it is removed)."""
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            with self._lock:
                self._uncount(digest)
            return None
        except OSError as error:
            _log.warning("adapter not readable on disk", digest=digest, error=str(error))
            return None
        if hashlib.sha256(data).hexdigest() != digest:
            _log.warning("adapter damaged on disk", digest=digest)
            self._metrics.disk_damaged()
            self.forget(digest)
            return None
        with self._lock:
            self._count(digest, len(data))
        with suppress(OSError):  # a read-only disk serves as well; only its order is lost at the next start
            os.utime(path)
        return data

    def put(self, digest: str, data: bytes) -> None:
        """Keep a file, all of it or nothing, and drop the longest unread beyond the budget; raises OSError."""
        if len(data) > self._budget_bytes:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=_PARTIAL, delete=False) as file:
            partial = Path(file.name)
            try:
                file.write(data)
                file.flush()
                partial.replace(self._path(digest))
            except OSError:
                with suppress(OSError):
                    partial.unlink(missing_ok=True)
                raise
        with self._lock:
            self._count(digest, len(data))
            self._evict()

    def forget(self, digest: str) -> None:
        """Remove a file; one that is not here is ignored."""
        with self._lock:
            self._remove(digest)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}{_SUFFIX}"

    def _count(self, digest: str, size: int) -> None:
        self._uncount(digest)
        self._sizes[digest] = size
        self._used_bytes += size
        self._metrics.held(Tier.DISK, self._used_bytes, len(self._sizes))

    def _uncount(self, digest: str) -> None:
        self._used_bytes -= self._sizes.pop(digest, 0)
        self._metrics.held(Tier.DISK, self._used_bytes, len(self._sizes))

    def _evict(self) -> None:
        for digest in list(self._sizes):
            if self._used_bytes <= self._budget_bytes:
                return
            self._remove(digest)
            self._metrics.evicted(Tier.DISK)

    def _remove(self, digest: str) -> None:
        self._uncount(digest)
        with suppress(OSError):  # its bytes are verified when they are read, so what stays does no harm
            self._path(digest).unlink(missing_ok=True)
