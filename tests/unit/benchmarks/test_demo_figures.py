"""A demo's figures are judged as the issue that asked for them says."""

from __future__ import annotations

import json

import pytest

from benchmarks.areas import demo
from benchmarks.bench import Bench
from terroir.demo.plan import Style, columns
from tests.unit.benchmarks.bench_kit import MACHINE

ADAPTERS = sorted(path.parent.name for path in demo.EXAMPLES.glob("*/style.yaml"))[:2]
FIRST, SECOND = (Style.load(demo.EXAMPLES / adapter) for adapter in ADAPTERS)


@pytest.fixture
def finished(tmp_path):
    """A finished demo's folder whose figures reach everything, and a function that judges it after changes."""

    def judged(**changes):
        found = []
        for column in columns(FIRST, SECOND):
            weight = column.weights[0][1] if len(column.weights) == 1 else None
            distance = {1.0: 0.5, 0.5: 0.8, None: 0.9}[weight] if column.weights else 1.0
            values = {"title": column.title, "distance": dict.fromkeys(ADAPTERS, distance), "agreement": 0.9}
            found.append({**values, **changes.get(column.title, {})})
        (tmp_path / "figures.json").write_text(json.dumps({"columns": found}))
        bench = Bench("demo", tmp_path, MACHINE, "python -m benchmarks --area demo", demo_out=tmp_path)
        return list(demo.rows(bench))

    return judged


def missed(rows):
    return [row.figure for row in rows if row.met is False]


def test_a_demo_that_reaches_everything_misses_nothing(finished):
    rows = finished()
    assert missed(rows) == []
    assert sum(row.met is True for row in rows) == 11


def test_a_demo_that_was_not_timed_says_so(finished):
    untimed = [row for row in finished() if row.ours is None]
    assert [row.unit for row in untimed] == ["s", "GiB"]
    assert all(row.met is None and "not timed" in row.reason for row in untimed)


@pytest.mark.parametrize(
    ("title", "change"),
    [
        (f"{FIRST.title} 1.0", {"distance": dict.fromkeys(ADAPTERS, 0.61)}),
        (f"{FIRST.title} 0.5", {"distance": dict.fromkeys(ADAPTERS, 0.49)}),
        (f"{SECOND.title} 0.5", {"distance": dict.fromkeys(ADAPTERS, 1.01)}),
        (f"{SECOND.title} 1.0", {"agreement": 0.79}),
        (columns(FIRST, SECOND)[-1].title, {"distance": {ADAPTERS[0]: 0.9, ADAPTERS[1]: 1.0}}),
    ],
)
def test_one_figure_out_of_bounds_is_one_missed_target(finished, title, change):
    assert len(missed(finished(**{title: change}))) == 1
