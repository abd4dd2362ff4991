"""The calibration's own arithmetic: what it compares, how survival is told, and what it reports."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.compatibility import survival
from benchmarks.compatibility.candidates import CANDIDATES, choose
from benchmarks.compatibility.drawing import Column, columns
from benchmarks.compatibility.report import related, report, save
from benchmarks.compatibility.styles import STYLES, pictures
from benchmarks.compatibility.survival import Survival, measure
from benchmarks.machine import Machine
from terroir.lora.compatibility import Overlap, interference

NAMES = tuple(style.name for style in STYLES)
PAIRS = list(itertools.combinations(NAMES, 2))
MACHINE = Machine("a cpu", 2, 8.0, "3", "2", "abc", "2026-01-01T00:00:00Z", 0.1)


def overlap_of(number: int) -> Overlap:
    rng = np.random.default_rng(number)
    cosine, reading, writing, strength = rng.uniform(0, 1, 4)
    return Overlap(cosine * strength, 1.0, strength, reading, writing, reading * writing, 3, 4)


def test_there_are_enough_styles_and_each_has_pictures_of_its_own():
    assert len(STYLES) >= 7
    assert len(PAIRS) >= 21
    assert len({look for style in STYLES for look in style.looks}) >= 7
    drawn = pictures(STYLES[0])
    assert [text for _, text in drawn] == [text for _, text in pictures(STYLES[0])]
    assert drawn[0][0].tobytes() == pictures(STYLES[0])[0][0].tobytes()
    assert drawn[0][0].tobytes() != pictures(STYLES[1])[0][0].tobytes()


def test_columns_are_base_each_alone_and_every_pair():
    assert [column.name for column in columns(("a", "b", "c"))] == ["base", "a", "b", "c", "a+b", "a+c", "b+c"]


def test_survival_is_the_part_of_the_way_from_base_that_the_stack_covers(tmp_path: Path, monkeypatch):
    distances = {"base": dict.fromkeys(NAMES, 2.0)}
    distances |= {Column((name,)).name: dict.fromkeys(NAMES, 1.0) for name in NAMES}
    distances |= {Column(pair).name: {pair[0]: 1.25, pair[1]: 2.5} for pair in PAIRS}
    monkeypatch.setattr(survival, "_distances", lambda _: distances)
    kept, found = measure(None, tmp_path)  # type: ignore[arg-type]  # nothing is drawn
    assert kept == distances
    assert found == dict.fromkeys(PAIRS, Survival(0.75, -0.5))
    assert Survival(0.75, -0.5).lesser == -0.5
    monkeypatch.setattr(survival, "_distances", lambda _: pytest.fail("measured twice"))
    assert measure(None, tmp_path)[1] == found  # type: ignore[arg-type]


@pytest.mark.parametrize("candidate", CANDIDATES, ids=[candidate.name for candidate in CANDIDATES])
def test_the_score_that_ranks_best_is_chosen(candidate):
    overlaps = [overlap_of(number) for number in range(30)]
    lost = [-candidate.score(overlap) for overlap in overlaps]
    assert choose(overlaps, lost).name == candidate.name


def test_the_report_holds_every_pair_and_the_plot_is_drawn(tmp_path: Path):
    overlaps = {pair: overlap_of(number) for number, pair in enumerate(PAIRS)}
    left = {pair: Survival(1 - interference(overlap), 1.0) for pair, overlap in overlaps.items()}
    found = report(overlaps, left, {"base": {"neon": 1.0}}, MACHINE)
    assert [(row["first"], row["second"]) for row in found["rows"]] == PAIRS
    assert {row["half"] for row in found["rows"]} == {"chosen on", "held out"}
    assert found["interference"]["rho, all"] == 1
    assert found["interference"]["p, adapters permuted"] < 0.01
    assert sum(level["pairs"] for level in found["levels"]) == len(PAIRS)
    save(found, tmp_path / "found.json", tmp_path / "images" / "plot.png")
    assert json.loads((tmp_path / "found.json").read_text())["chosen"] == found["chosen"]
    with Image.open(tmp_path / "images" / "plot.png") as plot:
        assert plot.size[0] > 800


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (("jiangnan-ink", "jiangnan-ink-again"), True),
        (("jiangnan-ink", "ink-and-hotpot"), True),
        (("sichuan-hotpot", "ink-and-hotpot"), True),
        (("jiangnan-ink", "sichuan-hotpot"), False),
        (("jiangnan-ink-again", "sichuan-hotpot"), False),
        (("neon", "jiangnan-ink"), False),
    ],
)
def test_near_duplicates_are_told_apart(pair, expected):
    assert related(pair) is expected
