"""Every method of every service under the faults of a network: nothing doubled, nothing lost, the same answer again."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from PIL import Image

from terroir._proto.dataset.v1 import dataset_pb2
from terroir._proto.inference.v1 import cover_pb2, inference_pb2
from terroir._proto.registry.v1 import region_pb2, registry_pb2
from terroir._proto.training.v1 import rating_pb2, style_pb2, training_pb2
from terroir.common.errors import TerroirError
from terroir.common.grpc_client import error_from_rpc
from tests.robustness.rpc.cases import CASES, Call, Case
from tests.robustness.rpc.faults import Fault
from tests.robustness.rpc.world import Stubs, World, running_world

pytestmark = pytest.mark.slow
FILES = (cover_pb2, dataset_pb2, inference_pb2, rating_pb2, region_pb2, registry_pb2, style_pb2, training_pb2)
METHODS = sorted(
    method.full_name
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
WRITES = ("Register", "Publish", "Set", "Rollback", "Delete", "Deprecate", "Add", "Put", "Create", "Import", "Caption",
          "Update", "Freeze", "Cancel", "Submit", "Prepare", "Invalidate")  # fmt: skip

TOLERANCE = 2
"""Of 255: a picture that shares its batch with its own retry is summed in another order."""
_WITHOUT_A_MIDDLE = {f"terroir.training.v1.TrainingService.{name}" for name in ("TailJobLogs", "DownloadJobReport")}
"""A job that no Ray has taken has no log, and a report of one part."""
_BREAKABLE = [
    name for name in METHODS if CASES[name].stream and not CASES[name].endless and name not in _WITHOUT_A_MIDDLE
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    from terroir.tiny.random_pipeline import build  # deferred: imports torch

    folder = tmp_path_factory.mktemp("world")
    with running_world(folder, build(folder / "base", seed=3)) as started:
        yield started


def answer(call: Call, stubs: Stubs) -> Any:
    """What a caller gets: messages, or the reason of a refusal that names itself."""
    try:
        return call(stubs)
    except grpc.RpcError as error:
        refusal = error_from_rpc(error)
    except TerroirError as error:
        refusal = error
    return refusal.reason


def same(case: Case, one: Any, other: Any) -> bool:
    """Whether two answers tell the same, but for what may vary."""
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    if "*" in case.varies:
        pairs = zip(_pictures(one), _pictures(other), strict=True)
        return all(int(np.abs(first - second).max()) <= TOLERANCE for first, second in pairs)
    return [_told(message, case) for message in one] == [_told(message, case) for message in other]


def _told(message: Any, case: Case) -> Any:
    if not isinstance(message, Message):
        return message
    copy: Any = type(message)()
    copy.CopyFrom(message)
    listed = copy.jobs if "jobs" in copy.DESCRIPTOR.fields_by_name else ()
    for each in (copy, *listed):
        for field in case.varies:
            if field in each.DESCRIPTOR.fields_by_name:
                each.ClearField(field)
    return copy.SerializeToString(deterministic=True)


def _pictures(messages: list[Any]) -> list[np.ndarray[Any, np.dtype[np.int16]]]:
    """Pixels of the pictures; what the files say of themselves names the request."""
    files: dict[int, bytes] = {}
    for event in messages:
        if isinstance(event, inference_pb2.GenerateResponse) and event.HasField("picture"):
            files[event.picture.index] = files.get(event.picture.index, b"") + event.picture.data
    return [np.asarray(Image.open(io.BytesIO(data)), np.int16) for _, data in sorted(files.items())]


def growth(before: dict[str, list[bytes]], after: dict[str, list[bytes]]) -> Counter[str]:
    """How many things of each kind came or went."""
    return Counter({kind: len(after[kind]) - len(before[kind]) for kind in after})


def under(world: World, fault: Fault, call: Call) -> None:
    """Make a call that fails as the network does."""
    world.faults.fault, before = fault, world.faults.struck
    try:
        assert answer(call, world.faulty) == "SERVICE_UNREACHABLE"
    finally:
        world.faults.fault = Fault.NONE
    assert world.faults.struck > before, "the fault has struck"


def test_every_method_has_a_case() -> None:
    assert sorted(CASES) == METHODS


def test_no_case_is_a_mere_refusal(world: World) -> None:
    """A call that is refused in any case would prove nothing; two methods have nothing to show without a Ray."""
    answers = {name: answer(case.prepare(world), world.sound) for name, case in CASES.items()}
    refused = {name: reason for name, reason in answers.items() if isinstance(reason, str)}
    assert set(refused) <= _WITHOUT_A_MIDDLE, refused


@pytest.mark.parametrize("name", METHODS)
def test_a_request_that_was_lost_changed_nothing_and_works_the_second_time(world: World, name: str) -> None:
    case = CASES[name]
    world.begin()
    call = case.prepare(world)
    before = world.everything()
    under(world, Fault.REQUEST_LOST, call)
    assert world.everything() == before
    first = answer(call, world.faulty)
    if name.rpartition(".")[2].startswith(WRITES):
        assert world.everything() != before, "a change that shows nowhere would prove nothing"
    assert same(case, first, answer(call, world.sound))


@pytest.mark.parametrize("name", [name for name in METHODS if not (CASES[name].endless or CASES[name].needs_answers)])
def test_after_a_lost_answer_a_retry_gets_it_and_does_nothing_twice(world: World, name: str) -> None:
    case = CASES[name]
    world.begin()
    call = case.prepare(world)
    under(world, Fault.RESPONSE_LOST, call)
    done = world.everything()
    retried = answer(call, world.faulty)
    assert world.everything() == done
    assert same(case, retried, answer(call, world.sound))


@pytest.mark.parametrize("name", METHODS)
def test_a_retry_that_meets_its_first_try_does_nothing_twice(world: World, name: str) -> None:
    case = CASES[name]
    world.begin()
    alone = case.prepare(world)
    start = world.everything()
    answer(alone, world.sound)
    once = growth(start, world.everything())
    call = case.prepare(world)
    start = world.everything()
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(lambda _: answer(call, world.sound), range(2))
    after = world.everything()
    assert growth(start, after) == once, "as many things came as of one call alone"
    assert same(case, one, other)
    assert same(case, one, answer(call, world.sound))
    assert world.everything() == after


@pytest.mark.parametrize("name", _BREAKABLE)
def test_a_stream_that_breaks_in_the_middle_is_repeated_whole(world: World, name: str) -> None:
    case = CASES[name]
    world.begin()
    call = case.prepare(world)
    under(world, Fault.STREAM_BROKEN, call)
    first = answer(call, world.faulty)
    assert not isinstance(first, str), first
    kept = world.everything()
    assert same(case, first, answer(call, world.sound))
    assert world.everything() == kept
