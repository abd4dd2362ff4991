"""Where requests go: near their styles, never too many to one replica, and around those that are gone."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir.client.ring import Ring
from terroir.client.routing import Router, composition_key, header_of
from terroir.common.clock import FixedClock
from terroir.common.errors import Unavailable

KEYS = [f"adapters/a-{number}" for number in range(2000)]
NAMES = st.sets(st.from_regex(r"[a-z]{1,6}:[0-9]{2}", fullmatch=True), min_size=1, max_size=12)


def replicas(count: int) -> list[str]:
    return [f"inference-{number}:7104" for number in range(count)]


@given(NAMES, st.text(max_size=20))
def test_every_replica_follows_every_key_once_whatever_order_they_are_named_in(names: set[str], key: str) -> None:
    order = list(Ring(names).order(key))
    assert sorted(order) == sorted(names)
    assert list(Ring(sorted(names, reverse=True)).order(key)) == order


@pytest.mark.parametrize("count", [2, 5, 16])
def test_keys_are_shared_evenly_and_few_move_when_a_replica_joins(count: int) -> None:
    before, after = Ring(replicas(count)), Ring(replicas(count + 1))
    homes = [next(before.order(key)) for key in KEYS]
    assert max(Counter(homes).values()) < 1.4 * len(KEYS) / count
    moved = [(old, next(after.order(key))) for old, key in zip(homes, KEYS, strict=True)]
    changed = [new for old, new in moved if old != new]
    assert set(changed) == {replicas(count + 1)[-1]}, "keys move to the new one alone"
    assert len(changed) < 1.5 * len(KEYS) / (count + 1)


def test_another_process_finds_the_same_home() -> None:
    """Python's own hash of texts differs by process."""
    script = "from terroir.client.ring import Ring; print(next(Ring(['a:1', 'b:2', 'c:3']).order('adapters/jiangnan')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == next(Ring(["a:1", "b:2", "c:3"]).order("adapters/jiangnan"))


@given(st.integers(1, 8), st.lists(st.sampled_from(KEYS[:5]), min_size=1, max_size=60))
def test_no_replica_gets_more_than_its_bound(count: int, keys: list[str]) -> None:
    router = Router(replicas(count))
    with ExitStack() as flying:
        for number, key in enumerate(keys, start=1):
            flying.enter_context(router.placed(key))
            assert max(router.in_flight.values()) <= -(-1.25 * number // count)
    assert set(router.in_flight.values()) == {0}


def test_a_quiet_client_sends_a_style_to_its_home() -> None:
    router = Router(replicas(4))
    for key in KEYS[:50]:
        with router.placed(key) as replica:
            assert replica == next(Ring(replicas(4)).order(key))


def test_requests_without_styles_go_where_least_is_to_do() -> None:
    router = Router(replicas(3))
    with router.placed("") as first, router.placed("") as second, router.placed("") as third:
        assert {first, second, third} == set(replicas(3))


def test_a_replica_that_failed_is_left_out_longer_each_time_and_comes_back() -> None:
    clock = FixedClock()
    router, key = Router(replicas(3), clock=clock), KEYS[0]
    home, following, _ = Ring(replicas(3)).order(key)

    def chosen() -> str:
        with router.placed(key) as replica:
            return replica

    for pause in (0.5, 1.0, 2.0):
        router.failed(home)
        clock.advance(pause - 0.01)
        assert chosen() == following
        clock.advance(0.02)
        assert chosen() == home
    router.answered(home)
    router.failed(home)
    clock.advance(0.51)
    assert chosen() == home, "an answer makes it as good as new"


def test_where_all_failed_all_are_tried_again_and_then_it_is_said() -> None:
    router = Router(replicas(2), clock=FixedClock())
    for replica in replicas(2):
        router.failed(replica)
    with router.placed(KEYS[0]) as first, router.placed(KEYS[0], [first]) as second:
        assert {first, second} == set(replicas(2))
    with pytest.raises(Unavailable) as gone, router.placed(KEYS[0], replicas(2)):
        pass
    assert gone.value.reason == "NO_REPLICA"


def test_the_key_is_what_a_request_wears_in_any_spelling() -> None:
    by_field = pb.GenerateRequest(
        adapters=[pb.AdapterWeight(adapter="adapters/b", weight=0.5), pb.AdapterWeight(adapter="adapters/a")]
    )
    by_tag = pb.GenerateRequest(prompt="a cat <lora:a:0.3> and <lora:b:te=0.2>", seeds=[3])
    assert composition_key(by_field) == composition_key(by_tag) == "adapters/a adapters/b"
    assert composition_key(pb.GenerateRequest(region="regions/CN-ZJ")) == "regions/CN-ZJ"
    assert composition_key(pb.GenerateRequest(prompt="a cat")) == ""
    assert "adapters" not in header_of("adapters/a") and len(header_of("adapters/a")) == 16
