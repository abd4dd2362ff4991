"""The one driver: our interface over obstore, whose backends are memory, a local folder and S3."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NoReturn, TypeAlias

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import MemoryStore as ObstoreMemory
from obstore.store import ObjectStore as Backend

from terroir.store.deadline import ensure_time_left
from terroir.store.errors import AlreadyExists, InvalidKey, NotFound, StoreError, StoreUnavailable
from terroir.store.interface import ensure_key, ensure_prefix
from terroir.store.observer import Observable, Operation

Verb: TypeAlias = Operation

_OS_ERROR = re.compile(r"\(os error (\d+)\)")

_FAILURES: dict[int, tuple[str, str]] = {
    errno.EROFS: ("STORE_READ_ONLY", "make it writable for this user or choose another data folder"),
    errno.EACCES: ("STORE_READ_ONLY", "make it writable for this user or choose another data folder"),
    errno.EPERM: ("STORE_READ_ONLY", "make it writable for this user or choose another data folder"),
    errno.ENOSPC: ("STORE_DISK_FULL", "free space there or choose another data folder, then try again"),
    errno.EDQUOT: ("STORE_DISK_FULL", "free space there or raise the quota, then try again"),
    errno.EEXIST: ("STORE_NOT_A_FOLDER", "choose a data folder that is not a file"),
    errno.ENOTDIR: ("STORE_NOT_A_FOLDER", "choose a data folder that is not a file or below one"),
    errno.EMFILE: ("STORE_UNAVAILABLE", "raise the limit of open files (ulimit -n) and restart"),
}
_OTHER_FAILURE = ("STORE_IO_ERROR", "check the disk or mount and the system log, then try again")


class ObstoreDriver(Observable):
    """Implements `ObjectStore` over any obstore backend.

    obstore's runtime does not survive `fork`: a child process opens its own driver (spawn, or a fresh program).
    """

    def __init__(self, backend: Backend, place: str) -> None:
        """`place` names the store in error messages."""
        self._backend = backend
        self._place = place

    def get(self, key: str) -> bytes:
        ensure_key(key)
        with self._translated(key, "read"):
            return self._backend.get(key).bytes().to_bytes()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        if start < 0 or length < 1:
            raise ValueError(f"range start={start} length={length} of {key} (pass start >= 0 and length >= 1)")
        # Backends disagree about a range past the end (error or nothing), so none is ever asked for.
        available = min(length, self.size(key) - start)
        if available <= 0:
            return b""
        with self._translated(key, "read"):
            return self._backend.get_range(key, start=start, length=available).to_bytes()

    def size(self, key: str) -> int:
        ensure_key(key)
        with self._translated(key, "read"):
            return self._backend.head(key)["size"]

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def create(self, key: str, body: bytes) -> None:
        self._write(key, body, "create")

    def put(self, key: str, body: bytes) -> None:
        self._write(key, body, "overwrite")

    def delete(self, key: str) -> None:
        ensure_key(key)
        try:
            with self._translated(key, "delete"):
                self._backend.delete(key)
        except NotFound:
            return

    def list(self, prefix: str) -> Iterator[str]:
        folder = ensure_prefix(prefix)
        with self._translated(prefix, "list"):
            found = [meta["path"] for batch in self._backend.list(folder or None) for meta in batch]
        yield from sorted(key for key in found if self._is_object(key))

    def _is_object(self, key: str) -> bool:
        try:
            ensure_key(key)
        except InvalidKey:  # not written by us: a staging folder, somebody's .DS_Store
            return False
        return True

    def _write(self, key: str, body: bytes, mode: Literal["create", "overwrite"]) -> None:
        ensure_key(key)
        with self._translated(key, "write"):
            # A multipart upload can't be conditional, so one request even for large bodies.
            obstore.put(self._backend_for(len(body)), key, body, mode=mode, use_multipart=False)

    def _backend_for(self, _body_bytes: int) -> Backend:
        """What writes a body of this size."""
        return self._backend

    @contextmanager
    def _translated(self, key: str, verb: Verb) -> Iterator[None]:
        ensure_time_left(key)
        begun = time.monotonic()
        try:
            try:
                yield
            except (BaseError, OSError) as error:
                self._raise_store_error(error, key, verb)
        except StoreUnavailable as error:
            self.observer.failed(verb, error.reason, time.monotonic() - begun)
            raise
        except StoreError:
            self.observer.answered(verb, time.monotonic() - begun)
            raise
        self.observer.answered(verb, time.monotonic() - begun)

    def _raise_store_error(self, error: Exception, key: str, verb: Verb) -> NoReturn:
        number = _errno_of(error)
        if verb == "write" and isinstance(error, AlreadyExistsError | FileExistsError):
            message = f"{key} already exists in {self._place} (read it, or write under another key)"
            raise AlreadyExists(message, key) from error
        # ENOTDIR: a parent of the key is itself an object, so nothing can be below it.
        if verb == "write" and number == errno.ENOTDIR:
            raise InvalidKey(f"{key} lies below another object of {self._place} (choose another name)", key) from error
        if verb in ("read", "delete") and (isinstance(error, FileNotFoundError) or number == errno.ENOTDIR):
            raise NotFound(f"{key} is not in {self._place} (check the name)", key) from error
        reason, next_step = _FAILURES.get(number, _OTHER_FAILURE)
        if reason == "STORE_READ_ONLY" and verb in ("read", "list"):
            reason, next_step = "STORE_PERMISSION_DENIED", "let this user read it"
        what = os.strerror(number) if number else str(error).partition("\n")[0]
        subject = f"{key} in {self._place}" if key else self._place
        raise StoreUnavailable(f"can't {verb} {subject}: {what} ({next_step})", key, reason) from error


def _errno_of(error: Exception) -> int:
    """The operating system's error number, 0 if unknown; obstore only prints it."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else 0


class MemoryStore(ObstoreDriver):
    """Objects that last as long as this value: for tests, and for previews that need no disk."""

    def __init__(self) -> None:
        super().__init__(ObstoreMemory(), "memory")
