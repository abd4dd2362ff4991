"""Bad input: a clear error with a reason code that never changes, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from terroir._proto.registry.v1 import registry_pb2 as pb
from tests.contract.registry.running import Running, refused
from tests.unit.registry.adapter_kit import adapter_bytes, foreign_shape_bytes, infinite_bytes, pickle_bytes

Call = Callable[[Running], object]


def publish(name: str = "adapters/x", data: bytes | None = None, **header: object) -> Call:
    """A publish with parts of its header replaced."""
    return lambda registry: registry.publish(name, adapter_bytes(rank=1) if data is None else data, **header)


def stream(*messages: pb.PublishVersionRequest) -> Call:
    """A publish stream as given."""
    return lambda registry: registry.api.PublishVersion(iter(messages))


def truncated(registry: Running) -> object:
    """An upload that ends before its announced size."""
    data = adapter_bytes(rank=1)
    header = pb.PublishVersionRequest(header=registry.header("adapters/x", data))
    return registry.api.PublishVersion(iter([header, pb.PublishVersionRequest(chunk=data[:-1])]))


def header_twice(registry: Running) -> object:
    """A header where a chunk belongs."""
    header = pb.PublishVersionRequest(header=registry.header("adapters/x", adapter_bytes(rank=1)))
    return registry.api.PublishVersion(iter([header, header]))


def get_version(name: str) -> Call:
    """GetVersion of a name."""
    return lambda registry: registry.api.GetVersion(pb.GetVersionRequest(name=name))


def set_alias(**fields: str) -> Call:
    """SetAlias with parts replaced."""
    request = {"adapter": "adapters/a", "alias": "production", "version": "adapters/a/versions/1", "reason": "x"}
    return lambda registry: registry.api.SetAlias(pb.SetAliasRequest(**{**request, **fields}))


def download(name: str, adapter_format: int = 0) -> Call:
    """All messages of a download."""
    request = pb.DownloadVersionRequest(name=name, format=adapter_format)  # type: ignore[arg-type]  # an unknown number
    return lambda registry: list(registry.api.DownloadVersion(request))


INVALID, MISSING = "INVALID_ARGUMENT", "NOT_FOUND"
CASES: list[tuple[str, Call, str, str]] = [
    ("garbage", publish(data=b"\x93 this is no safetensors file" * 9), INVALID, "ADAPTER_FILE_UNREADABLE"),
    ("pickle", publish(data=pickle_bytes()), INVALID, "ADAPTER_IS_PICKLE"),
    ("other shapes", publish(data=foreign_shape_bytes()), INVALID, "ADAPTER_WRONG_SHAPE"),
    ("not finite", publish(data=infinite_bytes()), INVALID, "ADAPTER_NOT_FINITE"),
    (
        "other layers",
        publish(data=adapter_bytes(1, layers={"unet.mid_block.x": (4, 4)})),
        INVALID,
        "ADAPTER_MATCHES_NOTHING",
    ),
    ("wrong digest", publish(file_digest="0" * 64), INVALID, "UPLOAD_DIGEST_MISMATCH"),
    ("digest no digest", publish(file_digest="../x"), INVALID, "INVALID_DIGEST"),
    ("too large", publish(size_bytes=2 * 1024**3), INVALID, "UPLOAD_TOO_LARGE"),
    ("announced empty", publish(size_bytes=0), INVALID, "UPLOAD_EMPTY"),
    ("truncated", truncated, INVALID, "UPLOAD_SIZE_MISMATCH"),
    ("no header", stream(pb.PublishVersionRequest(chunk=b"x")), INVALID, "UPLOAD_HEADER_MISSING"),
    ("empty stream", stream(), INVALID, "UPLOAD_HEADER_MISSING"),
    ("header twice", header_twice, INVALID, "UPLOAD_NOT_A_CHUNK"),
    ("a print that is none", publish(training_print=b"TERRPRNT"), INVALID, "TRAINING_PRINT_INVALID"),
    ("a print too large", publish(training_print=bytes(4 * 1024**2 + 1)), INVALID, "TRAINING_PRINT_TOO_LARGE"),
    ("unknown base", publish(base="bases/none"), MISSING, "BASE_NOT_FOUND"),
    ("another base", publish(base_digest="0" * 64), "FAILED_PRECONDITION", "ADAPTER_BASE_MISMATCH"),
    ("dots in adapter", publish("adapters/../etc"), INVALID, "INVALID_NAME"),
    ("dots in base", publish(base="bases/../x"), INVALID, "INVALID_NAME"),
    ("65 labels", publish(labels={str(n): "" for n in range(65)}), INVALID, "TOO_MANY_LABELS"),
    ("long label", publish(labels={"a": "x" * 257}), INVALID, "TEXT_TOO_LONG"),
    ("long trigger", publish(trigger_word="x" * 65), INVALID, "TEXT_TOO_LONG"),
    ("unknown adapter", get_version("adapters/none"), MISSING, "ADAPTER_NOT_FOUND"),
    ("unknown version", get_version("adapters/a/versions/9"), MISSING, "VERSION_NOT_FOUND"),
    ("unknown alias", get_version("adapters/a@none"), MISSING, "ALIAS_NOT_FOUND"),
    ("dots in name", get_version("adapters/.."), INVALID, "INVALID_NAME"),
    ("download of unknown", download("adapters/none"), MISSING, "ADAPTER_NOT_FOUND"),
    ("unknown format", download("adapters/a", 9), INVALID, "UNKNOWN_FORMAT"),
    ("alias to nowhere", set_alias(version="adapters/a/versions/9"), MISSING, "VERSION_NOT_FOUND"),
    ("alias abroad", set_alias(version="adapters/b/versions/1"), INVALID, "ALIAS_OUTSIDE_ADAPTER"),
    ("alias to alias", set_alias(version="adapters/a@production"), INVALID, "INVALID_NAME"),
    ("alias name", set_alias(alias="Pro duction"), INVALID, "INVALID_IDENTIFIER"),
    ("no reason for a protected one", set_alias(reason=""), INVALID, "TEXT_MISSING"),
    ("endless reason", set_alias(reason="x" * 501), INVALID, "TEXT_TOO_LONG"),
]


@pytest.fixture(scope="module")
def stocked(module_registry: Running) -> Running:
    """A registry with one adapter, `adapters/a`, that no bad input may change."""
    module_registry.publish("adapters/a", adapter_bytes(rank=1))
    return module_registry


@pytest.mark.parametrize(("call", "code", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bad_input_is_refused_with_its_reason_and_leaves_nothing(
    stocked: Running, call: Call, code: str, reason: str
) -> None:
    with refused() as error:
        call(stocked)
    assert (error.code, error.reason) == (code, reason)
    assert error.message
    assert stocked.adapters() == ["adapters/a"]
