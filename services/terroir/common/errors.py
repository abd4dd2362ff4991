"""The one tree of errors that services raise and clients see; knows nothing of gRPC.

Each error names the thing, the value, the limit and the next step in its message, and carries a stable reason code that
programs may test. `terroir.common.grpc_errors` is the one table from here to status codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar


class ErrorCode(StrEnum):
    """Classes of failure, named as gRPC names them (google.rpc.Code)."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    ABORTED = "ABORTED"
    CANCELLED = "CANCELLED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    DATA_LOSS = "DATA_LOSS"
    INTERNAL = "INTERNAL"


class TerroirError(Exception):
    """A failure with a class, a stable reason in UPPER_SNAKE, and a message for people.

    `field` is the request field at fault; `retry_after_seconds` is set where trying again later may help.
    """

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL
    reason: str = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] = MappingProxyType({}),
        field: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.metadata = dict(metadata)
        self.field = field
        self.retry_after_seconds = retry_after_seconds


class InvalidArgument(TerroirError):
    """The request is wrong in itself; the same request never works."""

    code = ErrorCode.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


class NotFound(TerroirError):
    """Something that the request names does not exist."""

    code = ErrorCode.NOT_FOUND
    reason = "NOT_FOUND"


class AlreadyExists(TerroirError):
    """Something that the request would create exists."""

    code = ErrorCode.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class FailedPrecondition(TerroirError):
    """The state of the system forbids it; something else must be done first."""

    code = ErrorCode.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class ResourceExhausted(TerroirError):
    """A quota, queue or limit is full."""

    code = ErrorCode.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class Unavailable(TerroirError):
    """It cannot be done now; the same request may work later."""

    code = ErrorCode.UNAVAILABLE
    reason = "UNAVAILABLE"


class Aborted(TerroirError):
    """Someone else changed the same thing; read again and repeat."""

    code = ErrorCode.ABORTED
    reason = "ABORTED"


class Cancelled(TerroirError):
    """The caller gave it up."""

    code = ErrorCode.CANCELLED
    reason = "CANCELLED"


class DeadlineExceeded(TerroirError):
    """The caller's deadline passed."""

    code = ErrorCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class Unauthenticated(TerroirError):
    """Nobody knows who calls, or their credentials do not hold."""

    code = ErrorCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(TerroirError):
    """The caller may not do this."""

    code = ErrorCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class DataLoss(TerroirError):
    """What was stored is damaged."""

    code = ErrorCode.DATA_LOSS
    reason = "DATA_LOSS"


class Internal(TerroirError):
    """A defect of ours; the message names nothing but the request identifier."""
