"""A part of an area that fails costs the others nothing, and is not hidden."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.__main__ import _collect
from benchmarks.bench import Bench
from benchmarks.parts import PartsFailed, in_parts
from benchmarks.rows import Row
from tests.unit.benchmarks.bench_kit import MACHINE


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench("store", tmp_path, MACHINE, "a command", say=lambda _line: None)


def test_the_rows_of_all_other_parts_are_kept_and_the_failed_ones_say_why(bench: Bench) -> None:
    def whole() -> Iterator[Row]:
        yield bench.row("whole", "s", 1.0)

    def half() -> Iterator[Row]:
        yield bench.row("half", "s", 2.0)
        raise OSError("disk full\nand more")

    def at_once() -> Iterator[Row]:
        raise ValueError

    found: list[Row] = []
    told = _collect(in_parts(bench, ("b", half), ("c", at_once), ("a", whole)), found)
    assert [(row.figure, row.ours) for row in found] == [
        ("half", 2.0), ("b", None), ("c", None), ("whole", 1.0),
    ]  # fmt: skip
    assert [row.reason for row in found if row.ours is None] == [
        "failed with OSError: disk full", "failed with ValueError: no message",
    ]  # fmt: skip
    assert told == "b, c"


def test_an_interruption_ends_the_area(bench: Bench) -> None:
    def interrupted() -> Iterator[Row]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(in_parts(bench, ("a", interrupted)))


def test_a_failure_is_raised_after_the_last_part_alone(bench: Bench) -> None:
    def failing() -> Iterator[Row]:
        raise ValueError("no")

    rows = in_parts(bench, ("a", failing), ("b", lambda: iter([bench.row("b", "s", 1.0)])))
    assert [next(rows).figure for _ in range(2)] == ["a", "b"]
    with pytest.raises(PartsFailed, match="a"):
        next(rows)
