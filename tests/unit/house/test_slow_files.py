"""The order in which files of tests start."""

from __future__ import annotations

from tests.command_line import ROOT
from tests.slow_files import SLOWEST_FIRST


def test_each_of_the_slowest_is_a_file_and_named_once() -> None:
    assert [path for path in SLOWEST_FIRST if not (ROOT / path).exists()] == []
    assert len(set(SLOWEST_FIRST)) == len(SLOWEST_FIRST)


def test_make_test_keeps_to_that_order() -> None:
    """By default xdist begins with the files of most tests, so that the slowest, of few tests each, come last."""
    assert "--dist loadfile --no-loadscope-reorder" in (ROOT / "Makefile").read_text()
