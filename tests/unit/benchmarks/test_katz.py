"""The trace is shaped as published, and its simulation tells policies apart."""

from __future__ import annotations

from collections import Counter, OrderedDict
from itertools import islice
from pathlib import Path

import pytest
import yaml

from benchmarks.areas import katz
from benchmarks.bench import Bench
from benchmarks.katz.simulation import simulate
from benchmarks.katz.trace import ADAPTERS, Trace
from tests.unit.benchmarks.bench_kit import MACHINE

ROUTING = Path(__file__).resolve().parents[3] / "docs" / "routing.md"


def test_the_trace_has_the_published_shape() -> None:
    """91 % wear two; an LRU of ten loads 0.54 a request; 99.8 % of adapters are below 1 % of calls."""
    requests = list(islice(iter(Trace(3)), 20_000))
    assert abs(sum(len(worn) == 2 for worn in requests) / len(requests) - 0.91) < 0.01
    cache: OrderedDict[int, None] = OrderedDict()
    loads = 0
    for adapter in (adapter for worn in requests for adapter in worn):
        loads += adapter not in cache
        cache[adapter] = None
        cache.move_to_end(adapter)
        if len(cache) > 10:
            cache.popitem(last=False)
    assert abs(loads / len(requests) - 0.54) < 0.03
    calls = Counter(adapter for worn in requests for adapter in worn)
    assert sum(count > len(requests) / 100 for count in calls.values()) <= 0.0025 * ADAPTERS


def test_the_same_seed_gives_the_same_trace() -> None:
    first, second, other = (list(islice(iter(Trace(seed)), 50)) for seed in (1, 1, 2))
    assert first == second != other


def test_bounded_hashing_loads_less_than_chance_and_waits_far_less_than_unbounded() -> None:
    by_chance, unbounded, bounded = (
        simulate(policy, 16, 2000) for policy in ("random", "consistent hashing", "consistent hashing, bounded 1.25")
    )
    assert bounded.loads < 0.9 * by_chance.loads
    assert bounded.waited < by_chance.waited < unbounded.waited
    assert bounded.imbalance < 2 < unbounded.imbalance


@pytest.mark.slow
def test_a_short_load_has_no_error_and_its_shares_add_up(tmp_path: Path) -> None:
    bench = Bench("katz", tmp_path, MACHINE, "a command", quick=True, say=lambda _line: None)
    rows = list(katz.load_rows(bench, 30, 4))
    figures = {row.figure: row.ours for row in rows}
    assert rows[0].ours == 0 and rows[0].met
    assert figures["requests served"]
    shares = [row.ours for row in rows if row.figure.startswith("wanted adapters")]
    assert sum(share for share in shares if share is not None) == pytest.approx(1, abs=0.01)


def test_the_route_rules_in_the_docs_are_yaml_that_names_the_header() -> None:
    text = ROUTING.read_text(encoding="utf-8")
    rules = [yaml.safe_load(block.split("```")[0]) for block in text.split("```yaml")[1:]]
    istio, gateway, envoy = rules
    assert istio["spec"]["trafficPolicy"]["loadBalancer"]["consistentHash"]["httpHeaderName"] == "x-terroir-composition"
    assert gateway["spec"]["loadBalancer"]["consistentHash"]["header"]["name"] == "x-terroir-composition"
    route = envoy["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
    assert route["hash_policy"][0]["header"]["header_name"] == "x-terroir-composition"
    assert envoy["clusters"][0]["common_lb_config"]["consistent_hashing_lb_config"]["hash_balance_factor"] == 125
