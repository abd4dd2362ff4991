"""Verdicts are measured, never typed in; files give back what was written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rows import AreaResult, Target, judge, load_all
from tests.unit.benchmarks.bench_kit import MACHINE

FIELDS = ["figure", "unit", "ours", "peer", "peer_name", "ratio", "target", "met", "reason", "command"]


def row(ours, **fields):
    return judge("a figure", "s", ours, command="python -m benchmarks", machine=MACHINE, **fields)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_target_is_met_exactly_within_its_bounds(value, low, high):
    assert row(value, target=Target(at_most=high, at_least=low)).met is (low <= value <= high)


def test_the_verdict_is_on_the_value_before_rounding():
    judged = row(1.50001, target=Target(1.5))
    assert (judged.ours, judged.met) == (1.5, False)


def test_a_ratio_is_ours_by_peer_and_can_be_what_is_judged():
    judged = row(3.0, peer=2.0, peer_name="other", target=Target(1.2, judged="ratio"))
    assert (judged.ratio, judged.met, judged.target) == (1.5, False, "ratio ≤ 1.2")


def test_a_target_for_more_cores_is_not_judged_and_says_so():
    judged = row(9.0, target=Target(1.5, cores=4))
    assert judged.met is None
    assert judged.reason == "the target is for 4 CPU cores, this machine has 2"


def test_what_was_not_measured_needs_a_reason():
    assert row(None, target=Target(1), reason="no such device").met is None
    with pytest.raises(ValueError, match="no reason"):
        row(None)


def test_a_ratio_cannot_be_judged_without_a_peer():
    with pytest.raises(ValueError, match="has no peer"):
        row(1.0, target=Target(1, judged="ratio"))


def test_a_result_file_holds_machine_and_rows_and_reads_back(tmp_path):
    result = AreaResult("store", MACHINE, 1.5, (row(1.0), row(2.0, target=Target(3))))
    fields = json.loads(result.save(tmp_path).read_text())
    assert list(fields["rows"][0]) == FIELDS
    assert load_all(tmp_path, ["missing", "store"]) == [result]
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]
