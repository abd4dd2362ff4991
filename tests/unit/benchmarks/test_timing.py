"""Both sides of a comparison are called alike."""

from __future__ import annotations

from benchmarks.timing import in_turns


def test_both_sides_get_every_turn_and_go_first_in_turns():
    calls = []
    in_turns(4, lambda turn: calls.append(("ours", turn)), lambda turn: calls.append(("peer", turn)))
    assert calls[::2] == [("ours", 0), ("peer", 1), ("ours", 2), ("peer", 3)]
    assert sorted(calls) == [(side, turn) for side in ("ours", "peer") for turn in range(4)]


def test_medians_are_of_the_right_side():
    work = iter(range(10**9))
    pair = in_turns(3, lambda _: None, lambda _: sum(next(work) for _ in range(20_000)))
    assert 0 <= pair.ours < pair.peer
