"""The one table between Terroir's errors and gRPC statuses with google.rpc details."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from terroir.common import errors
from terroir.common.errors import TerroirError
from terroir.store import errors as store_errors

DOMAIN: Final = "terroir"
# A status travels in HTTP/2 trailers, whose 8 KiB gRPC enforces: percent-encoded once, and twice more in the details.
_MESSAGE_BYTES: Final = 1024
_METADATA_BYTES: Final = 256

_STORE_RETRY_SECONDS: Final = 2.0
_CLASSES: Final[dict[str, type[TerroirError]]] = {
    kind.code.value: kind
    for kind in (
        errors.InvalidArgument, errors.NotFound, errors.AlreadyExists, errors.FailedPrecondition,
        errors.ResourceExhausted, errors.Unavailable, errors.Aborted, errors.Cancelled, errors.DeadlineExceeded,
        errors.Unauthenticated, errors.PermissionDenied, errors.DataLoss, errors.Internal,
    )
}  # fmt: skip

_STORE_CLASSES: Final[tuple[tuple[type[store_errors.StoreError], type[TerroirError]], ...]] = (
    (store_errors.NotFound, errors.NotFound),
    (store_errors.AlreadyExists, errors.AlreadyExists),
    (store_errors.InvalidKey, errors.InvalidArgument),
    (store_errors.OperationConflict, errors.AlreadyExists),
    (store_errors.EtagMismatch, errors.Aborted),
    (store_errors.CorruptObject, errors.DataLoss),
    (store_errors.StoreUnavailable, errors.Unavailable),
)


def from_exception(error: BaseException, request_id: str) -> TerroirError:
    """What a caller may see of any exception: its own text only if it is an error that we named."""
    if isinstance(error, TerroirError):
        return error
    for store_class, kind in _STORE_CLASSES:
        if isinstance(error, store_class):
            passes = isinstance(error, store_errors.StoreUnavailable) and error.passes
            return kind(str(error), reason=error.reason, retry_after_seconds=_STORE_RETRY_SECONDS if passes else None)
    return errors.Internal(f"internal error; tell the operator request {request_id}", reason="INTERNAL")


def to_status(error: TerroirError, request_id: str) -> grpc.Status:
    """Status with ErrorInfo, RequestInfo and, where they apply, BadRequest and RetryInfo."""
    message = _bounded(str(error), _MESSAGE_BYTES)
    metadata = {key: _bounded(value, _METADATA_BYTES) for key, value in error.metadata.items()}
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code.value), message=message)
    details = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return rpc_status.to_status(status)


def _bounded(text: str, limit: int) -> str:
    """`text` as valid UTF-8 of at most `limit` bytes."""
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= limit else data[: limit - 3].decode("utf-8", "ignore") + "…"


def from_rpc(error: grpc.RpcError) -> TerroirError:
    """The error that a server raised, restored on the caller's side; foreign statuses keep code and text."""
    code: grpc.StatusCode = error.code()
    kind = _CLASSES.get(code.name, errors.Internal)
    message = error.details() or code.name
    restored = kind(message, reason=code.name)
    for detail in _details(error):
        if isinstance(detail, error_details_pb2.ErrorInfo):
            restored.reason, restored.metadata = detail.reason, dict(detail.metadata)
        elif isinstance(detail, error_details_pb2.BadRequest) and detail.field_violations:
            restored.field = detail.field_violations[0].field
        elif isinstance(detail, error_details_pb2.RetryInfo):
            restored.retry_after_seconds = detail.retry_delay.ToNanoseconds() / 1e9
    return restored


def _details(
    error: grpc.RpcError,
) -> Iterator[error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo]:
    try:
        status = rpc_status.from_call(cast(grpc.Call, error))  # what a call raises is the call itself
    except (ValueError, AttributeError):  # a status without details, or one that never left this machine
        return
    for packed in status.details if status is not None else ():
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            detail = kind()
            if packed.Unpack(detail):
                yield detail
