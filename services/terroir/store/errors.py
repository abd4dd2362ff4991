"""What can go wrong with the store; every error has the key, a stable reason code and a next step."""

from __future__ import annotations

from typing import ClassVar, Final

_PASSING: Final = ("STORE_UNAVAILABLE", "STORE_UNREACHABLE", "STORE_INCONSISTENT", "STORE_DEADLINE_PASSED")


class StoreError(Exception):
    """Root of the tree; `reason` is the machine-readable code. Survives pickling, so Ray workers may raise it."""

    default_reason: ClassVar[str] = "STORE_ERROR"

    def __init__(self, message: str, key: str, reason: str | None = None) -> None:
        super().__init__(message, key, reason)
        self.message = message
        self.key = key
        self.reason = reason or self.default_reason

    def __str__(self) -> str:
        return self.message


class NotFound(StoreError):
    """No object at the key."""

    default_reason = "STORE_OBJECT_NOT_FOUND"


class AlreadyExists(StoreError):
    """A create met an object, which was left as it was."""

    default_reason = "STORE_OBJECT_EXISTS"


class StoreUnavailable(StoreError):
    """The place could not be reached, read or written: STORE_READ_ONLY, STORE_DISK_FULL, STORE_IO_ERROR, ..."""

    default_reason = "STORE_UNAVAILABLE"

    @property
    def passes(self) -> bool:
        """Whether it may well work in a moment: nobody has to change anything first."""
        return self.reason in _PASSING


class InvalidKey(StoreError):
    """The key can't name an object."""

    default_reason = "STORE_INVALID_KEY"


class CorruptObject(StoreError):
    """The stored bytes are not what was written."""

    default_reason = "STORE_OBJECT_CORRUPT"


class CorruptBlob(CorruptObject):
    """The bytes of a blob do not have its digest."""

    default_reason = "STORE_BLOB_CORRUPT"

    @property
    def digest(self) -> str:
        """The sha256 that the bytes should have (64 hex digits)."""
        return self.key.rpartition("/")[2]


class OperationConflict(StoreError):
    """An op_id came back with another request."""

    default_reason = "STORE_OPERATION_CONFLICT"


class EtagMismatch(StoreError):
    """The head is not the document that the writer had read."""

    default_reason = "STORE_ETAG_MISMATCH"
