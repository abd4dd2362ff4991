"""CheckCompatibility as a client meets it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.client.registry import Registry
from terroir.common.errors import FailedPrecondition
from terroir.registry import compatibility
from tests.contract.registry.running import BASE, OTHER_BASE, Running, refused
from tests.unit.registry.adapter_kit import adapter_bytes


@pytest.fixture(scope="module")
def stocked(module_registry: Running) -> Iterator[Running]:
    """Four adapters of one base, one of another."""
    for seed, name in enumerate("abcd"):
        module_registry.publish(f"adapters/{name}", adapter_bytes(rank=2, seed=seed))
    module_registry.publish("adapters/abroad", adapter_bytes(rank=2, seed=9), base=OTHER_BASE)
    yield module_registry


def check(registry: Running, *names: str) -> pb.CheckCompatibilityResponse:
    """The call, with plain ids."""
    request = pb.CheckCompatibilityRequest(adapters=[f"adapters/{name}" for name in names])
    found: pb.CheckCompatibilityResponse = registry.api.CheckCompatibility(request, timeout=30)
    return found


def test_it_answers_for_every_pair_with_weights_and_the_worst_level(stocked: Running) -> None:
    found = check(stocked, "b", "a/versions/1", "c")
    assert [(p.first, p.second) for p in found.pairs] == [
        ("adapters/b/versions/1", "adapters/a/versions/1"),
        ("adapters/b/versions/1", "adapters/c/versions/1"),
        ("adapters/a/versions/1", "adapters/c/versions/1"),
    ]
    for pair in found.pairs:
        assert (pair.shared_layers, pair.layers) == (3, 3)
        assert 0 <= pair.interference <= 1
        assert -1 <= pair.delta_cosine <= 1
        assert -1 < pair.input_overlap < 1
        assert -1 < pair.output_overlap < 1
        assert pair.level != pb.INTERFERENCE_LEVEL_UNSPECIFIED
    assert found.level == max(pair.level for pair in found.pairs)
    assert len(found.suggested_weights) == 3
    assert all(0 < weight <= 1 for weight in found.suggested_weights)


def test_the_second_answer_comes_from_the_store_and_is_the_same(stocked: Running) -> None:
    first = check(stocked, "c", "d")
    assert list((stocked.data_dir / "compat").glob("*/*--*.json"))
    assert check(stocked, "c", "d") == first


def test_the_client_asks_for_it_by_names_and_raises_typed_errors(stocked: Running) -> None:
    client = Registry.__new__(Registry)
    client._stub = stocked.api
    assert client.compatibility(["adapters/a", "adapters/b"]) == check(stocked, "a", "b")
    with pytest.raises(FailedPrecondition, match="bases/other") as error:
        client.compatibility(["adapters/a", "adapters/abroad"])
    assert error.value.reason == "COMPATIBILITY_BASES_DIFFER"


@pytest.mark.parametrize(
    ("names", "code", "reason"),
    [
        ((), "INVALID_ARGUMENT", "COMPATIBILITY_COUNT"),
        (("a",), "INVALID_ARGUMENT", "COMPATIBILITY_COUNT"),
        (tuple("abcdabcda"), "INVALID_ARGUMENT", "COMPATIBILITY_COUNT"),
        (("a", "a/versions/1"), "INVALID_ARGUMENT", "COMPATIBILITY_TWICE"),
        (("a", "../b"), "INVALID_ARGUMENT", "INVALID_NAME"),
        (("a", "b/versions/0"), "INVALID_ARGUMENT", "INVALID_NAME"),
        (("a", "none"), "NOT_FOUND", "ADAPTER_NOT_FOUND"),
        (("a", "b/versions/9"), "NOT_FOUND", "VERSION_NOT_FOUND"),
        (("a", "b@none"), "NOT_FOUND", "ALIAS_NOT_FOUND"),
        (("a", "abroad"), "FAILED_PRECONDITION", "COMPATIBILITY_BASES_DIFFER"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_its_reason(
    stocked: Running, names: tuple[str, ...], code: str, reason: str
) -> None:
    with refused() as error:
        check(stocked, *names)
    assert (error.code, error.reason) == (code, reason)


class Held:
    """Comparisons that begin, and go on when they are told to."""

    def __init__(self, compare_pairs: Any) -> None:
        self._compare_pairs = compare_pairs
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self._lock = threading.Lock()
        self._now = self.most = 0

    def __call__(self, *arguments: Any) -> Any:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self.begun.release()
        assert self.go_on.wait(20)
        with self._lock:
            self._now -= 1
        return self._compare_pairs(*arguments)


def test_comparisons_hold_up_no_other_call_and_run_two_at_a_time(
    stocked: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate("wxyz", start=20):
        stocked.publish(f"adapters/{name}", adapter_bytes(rank=2, seed=seed))
    held = Held(compatibility.compare_pairs)
    monkeypatch.setattr(compatibility, "compare_pairs", held)
    with ThreadPoolExecutor(6) as callers:
        calls = [callers.submit(check, stocked, *pair) for pair in itertools.combinations("wxyz", 2)]
        assert held.begun.acquire(timeout=20)
        assert held.begun.acquire(timeout=20)
        assert stocked.api.GetBase(pb.GetBaseRequest(name=BASE), timeout=10).name == BASE
        held.go_on.set()
        assert all(call.result().pairs for call in calls)
    assert held.most == 2
