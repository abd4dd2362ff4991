"""Any bytes and any fields at every method: a named refusal or an answer, never a defect, never a hang, no inner texts.

TERROIR_SOAK_RPC_FUZZ sets how many of each for each method; the soak takes 500.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.robustness.rpc.test_rpc_faults import FILES
from tests.robustness.rpc.world import World, running_world

COUNT = int(os.environ.get("TERROIR_SOAK_RPC_FUZZ", "8"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 20 * COUNT)]
SECONDS, WATCHED_SECONDS = 10, 1
METHODS = [
    method for file in FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
]
WORDS = [
    "", "a", "adapters/ink", "adapters/ink/versions/1", "adapters/ink@production", "bases/tiny", "bases/none",
    "recipes/x", "regions/CN", "regions/../x", "datasets/d", "datasets/d/versions/1", "jobs/j", "styles/s",
    "ratingSheets/s", "preparations/p", "covers/" + "0" * 64, "../../etc/passwd",
    "\x00", "%s%n", "{}", "🐉" * 50, "x" * 5000, "dataset: datasets/d\nlora_rank: -1", "!!python/object:os.system x",
    "0" * 64, "CN-ZJ",
]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 7, 64, 2**31 - 1, -(2**31)]
WORST = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
LEAKS = ("Traceback", "site-packages", ".py", "object at 0x")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    from terroir.tiny.random_pipeline import build  # deferred: imports torch

    folder = tmp_path_factory.mktemp("fuzzed-world")
    with running_world(folder, build(folder / "base", seed=3)) as started:
        started.adapter(1)
        yield started


def scalar(field: FieldDescriptor, rng: random.Random) -> Any:
    """A value of a field's type, often one that somebody would try."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        word = rng.choice(WORDS)
        return word.encode() + rng.randbytes(rng.choice((0, 3, 2000))) if field.type == field.TYPE_BYTES else word
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return rng.choice([0.0, 1.0, -1.0, 0.5, 1e30, -1e30, float("nan"), float("inf")])
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice([value.number for value in field.enum_type.values] + [999])
    number = rng.choice(NUMBERS)
    return abs(number) if kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64) else number


def fill(message: Message, rng: random.Random, depth: int = 0) -> Message:
    """Set some fields of a message, and of those within it."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.4 or depth > 3:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is None:
                key, value = (scalar(field.message_type.fields_by_name[name], rng) for name in ("key", "value"))
                getattr(message, field.name)[key] = value
        elif field.is_repeated:
            for _ in range(rng.choice((1, 2, 70))):
                if field.message_type is not None:
                    fill(getattr(message, field.name).add(), rng, depth + 1)
                else:
                    getattr(message, field.name).append(scalar(field, rng))
        elif field.message_type is not None:
            fill(getattr(message, field.name), rng, depth + 1)
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, scalar(field, rng))
    return message


def watches(method: MethodDescriptor) -> bool:
    """Whether its stream goes on until the caller ends it."""
    return method.server_streaming and method.name.startswith("Watch")


def outcome(world: World, method: MethodDescriptor, requests: list[bytes]) -> tuple[grpc.StatusCode, str]:
    """How a call with these request bytes ends; a stream is followed for a while."""
    channel = world.channels[method.containing_service.full_name]
    path = f"/{method.containing_service.full_name}/{method.name}"
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    given: Any = iter(requests) if method.client_streaming else requests[0]
    try:
        call = getattr(channel, kind)(path)(given, timeout=WATCHED_SECONDS if watches(method) else SECONDS)
        if method.server_streaming:
            for count, _ in enumerate(call):
                if count >= 3:
                    call.cancel()
                    break
    except grpc.RpcError as error:
        return error.code(), str(error.details())
    return grpc.StatusCode.OK, ""


def judge(world: World, method: MethodDescriptor, tried: list[bytes]) -> None:
    code, text = outcome(world, method, tried)
    assert code not in WORST, (code, text, tried)
    assert code is not grpc.StatusCode.DEADLINE_EXCEEDED or watches(method), ("it hangs", tried)
    assert str(world.folder) not in text, (text, tried)
    assert not [leak for leak in LEAKS if leak in text], (text, tried)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name.removeprefix("terroir."))
def test_any_bytes_are_refused_by_name(world: World, method: MethodDescriptor) -> None:
    rng = random.Random(method.full_name)
    for _ in range(COUNT):
        tried = [rng.randbytes(rng.choice((0, 1, 10, 100, 5000))) for _ in range(3)]
        judge(world, method, tried)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name.removeprefix("terroir."))
def test_any_fields_are_answered_or_refused_by_name(world: World, method: MethodDescriptor) -> None:
    rng, kind = random.Random(f"fields of {method.full_name}"), GetMessageClass(method.input_type)
    for _ in range(COUNT):
        tried = [fill(kind(), rng).SerializeToString() for _ in range(3)]
        judge(world, method, tried)


def test_the_services_still_work_afterwards(world: World) -> None:
    name = world.adapter(1)
    assert name in {adapter.name for adapter in world._adapters()}
