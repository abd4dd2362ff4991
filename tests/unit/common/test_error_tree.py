"""One tree of errors, one table to gRPC and back."""

from __future__ import annotations

import inspect
import pickle

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from terroir.common import errors
from terroir.common.errors import ErrorCode, TerroirError
from terroir.common.grpc_client import error_from_rpc
from terroir.common.grpc_errors import from_exception, to_status
from terroir.store import errors as store_errors

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, TerroirError) and kind is not TerroirError
]
STORE_CLASSES = [
    kind
    for _, kind in inspect.getmembers(store_errors, inspect.isclass)
    if issubclass(kind, store_errors.StoreError) and kind is not store_errors.StoreError
]


def sent(error: TerroirError) -> status_pb2.Status:
    """The google.rpc status that a caller would receive."""
    trailers = dict(to_status(error, "request-1").trailing_metadata)
    return status_pb2.Status.FromString(trailers["grpc-status-details-bin"])


def test_every_code_has_exactly_one_class():
    assert sorted(kind.code for kind in CLASSES) == sorted(ErrorCode)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_class_keeps_what_it_is_given(kind):
    error = kind("rank 512 exceeds 128", reason="RANK_TOO_HIGH", metadata={"rank": "512"}, field="rank")
    assert (str(error), error.reason, error.metadata, error.field) == (
        "rank 512 exceeds 128", "RANK_TOO_HIGH", {"rank": "512"}, "rank",
    )  # fmt: skip
    assert (kind("x").reason, kind("x").metadata) == (kind.code.value, {})


def test_the_reason_of_one_error_is_not_that_of_its_class():
    errors.NotFound("x", reason="ADAPTER_NOT_FOUND")
    assert errors.NotFound("y").reason == "NOT_FOUND"


def test_an_error_survives_the_way_through_a_ray_worker():
    error = pickle.loads(
        pickle.dumps(errors.NotFound("no", reason="ADAPTER_NOT_FOUND", metadata={"a": "b"}, field="f"))
    )
    assert (str(error), error.reason, error.metadata, error.field) == ("no", "ADAPTER_NOT_FOUND", {"a": "b"}, "f")


@pytest.mark.parametrize("kind", STORE_CLASSES)
def test_every_error_of_the_store_has_a_class_of_its_own_meaning(kind):
    seen = from_exception(kind("the disk is full", "some/key", "STORE_DISK_FULL"), "request-1")
    assert not isinstance(seen, errors.Internal)
    assert (str(seen), seen.reason) == ("the disk is full", "STORE_DISK_FULL")


def test_an_unknown_exception_tells_nothing_but_the_request():
    seen = from_exception(ValueError("secret path /home/somebody"), "request-1")
    assert isinstance(seen, errors.Internal)
    assert str(seen) == "internal error; tell the operator request request-1"


@given(st.text(alphabet=st.characters(), max_size=5000))
def test_a_status_fits_into_the_trailers_whatever_the_message(message):
    """gRPC refuses trailers over 8 KiB, and the caller then sees RESOURCE_EXHAUSTED instead of the error."""
    error = errors.InvalidArgument(message, field="caption", metadata={"value": message})
    status = sent(error)
    assert status.code == code_pb2.INVALID_ARGUMENT
    assert len(status.message.encode()) <= 1024
    assert 3 * len(status.message.encode()) + len(status.SerializeToString()) * 4 / 3 < 8000
    if "\ufffd" not in message and len(message.encode("utf-8", "replace")) <= 1024:
        assert status.message == message.encode("utf-8", "replace").decode()


def test_details_hold_reason_field_retry_and_request():
    error = errors.ResourceExhausted("full", reason="QUEUE_FULL", field="seeds", retry_after_seconds=1.5)
    details = {packed.TypeName().rsplit(".", 1)[1]: packed for packed in sent(error).details}
    assert set(details) == {"ErrorInfo", "RequestInfo", "BadRequest", "RetryInfo"}
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert details["ErrorInfo"].Unpack(info)
    assert details["RetryInfo"].Unpack(retry)
    assert (info.reason, info.domain) == ("QUEUE_FULL", "terroir")
    assert retry.retry_delay.ToMilliseconds() == 1500


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("CANCELLED", errors.Unavailable, "SERVICE_STOPPING"),
        ("Locally cancelled by application!", errors.Cancelled, "CANCELLED"),
    ],
)
def test_only_a_stopping_server_makes_a_cancelled_call_worth_another_try(text, kind, reason):
    nothing = grpc.aio.Metadata()
    seen = error_from_rpc(grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, nothing, nothing, details=text))
    assert (type(seen), seen.reason) == (kind, reason)
