"""The calibration's own arithmetic: what it compares, how survival is told, and what it reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.compatibility.candidates import CANDIDATES, choose, fit
from benchmarks.compatibility.drawing import Column, columns
from benchmarks.compatibility.report import partition, related, report, save
from benchmarks.compatibility.styles import ALL, CONFIRMING, PAIRS, RANDOM, STYLES, pictures
from benchmarks.compatibility.survival import Survival, measure
from benchmarks.machine import Machine
from terroir.lora import compatibility
from terroir.lora.compatibility import Overlap, interference

NAMES = tuple(style.name for style in ALL)
RESULT = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "compatibility.json"
DISTANCES = {"base": dict.fromkeys(NAMES, 1.0)} | {
    name: {name: 0.9 if name == RANDOM[0].name else 0.5} for name in NAMES
}
MACHINE = Machine("a cpu", 2, 8.0, "3", "2", "abc", "2026-01-01T00:00:00Z", 0.1)


def overlap_of(number: int) -> Overlap:
    rng = np.random.default_rng(number)
    cosine, reading, writing, strength = rng.uniform(0, 0.3, 4)
    return Overlap(cosine * strength, 1.0, strength, reading, writing, 3, 4)


def test_there_are_enough_styles_and_each_has_pictures_of_its_own():
    assert len(STYLES) >= 7
    assert len(PAIRS) == len({frozenset(pair) for pair in PAIRS}) == 45 + 60 + 33
    assert len({look for style in STYLES for look in style.looks}) >= 7
    drawn = pictures(STYLES[0])
    assert [text for _, text in drawn] == [text for _, text in pictures(STYLES[0])]
    assert drawn[0][0].tobytes() == pictures(STYLES[0])[0][0].tobytes()
    assert drawn[0][0].tobytes() != pictures(STYLES[1])[0][0].tobytes()


def test_columns_are_base_each_alone_and_the_pairs():
    pairs = [("a", "b"), ("b", "c")]
    assert [column.name for column in columns("abc", pairs)] == ["base", "a", "b", "c", "a+b", "b+c"]


def test_survival_is_the_part_of_the_way_from_base_that_the_stack_covers(tmp_path: Path):
    distances = {"base": dict.fromkeys(NAMES, 2.0)}
    distances |= {Column((name,)).name: dict.fromkeys(NAMES, 1.0) for name in NAMES}
    distances |= {Column(pair).name: {pair[0]: 1.25, pair[1]: 2.5} for pair in PAIRS}
    (tmp_path / "distances.json").write_text(json.dumps(distances))
    kept, found = measure(None, tmp_path)  # type: ignore[arg-type]  # nothing is drawn
    assert kept == distances
    assert found == dict.fromkeys(PAIRS, Survival(0.75, -0.5))
    assert Survival(0.75, -0.5).lesser == -0.5


ELIGIBLE = [candidate for candidate in CANDIDATES if candidate.knows_opposites]


@pytest.mark.parametrize("candidate", ELIGIBLE, ids=[candidate.name for candidate in ELIGIBLE])
def test_the_score_that_ranks_best_is_chosen(candidate):
    overlaps = [overlap_of(number) for number in range(30)]
    lost = [-candidate.score(overlap) for overlap in overlaps]
    assert choose(overlaps, lost).name == candidate.name


def test_the_report_holds_every_pair_and_the_plot_is_drawn(tmp_path: Path):
    overlaps = {pair: overlap_of(number) for number, pair in enumerate(PAIRS)}
    left = {pair: Survival(1 - interference(overlap), 1.0) for pair, overlap in overlaps.items()}
    found = report(overlaps, left, DISTANCES, MACHINE)
    assert [(row["first"], row["second"]) for row in found["rows"]] == list(PAIRS)
    assert {row["part"] for row in found["rows"]} == {"chosen on", "held out", "confirming", "left out"}
    assert found["interference"]["rho, calibration"] == found["interference"]["rho, confirming"] == 1
    assert found["interference"]["p by adapters permuted, looks by hand"] < 0.01
    assert sum(level["pairs"] for level in found["levels"]["looks by hand"]) == 45
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


def test_halves_alternate_and_a_random_look_that_was_not_taught_is_left_out():
    parts = partition(PAIRS, DISTANCES)
    assert (len(parts["looks by hand"]), len(parts["with random looks"])) == (45, 4 * 10 + 6)
    assert sorted([*parts["chosen on"], *parts["held out"]]) == sorted(parts["calibration"])
    assert abs(len(parts["chosen on"]) - len(parts["held out"])) <= 1
    assert not any(RANDOM[0].name in pair for pair in parts["calibration"])


def test_confirming_pairs_took_no_part_in_the_choice():
    parts, confirming = partition(PAIRS, DISTANCES), {style.name for style in CONFIRMING}
    assert len(parts["confirming"]) == 33
    assert not any(set(pair) & confirming for pair in parts["calibration"])


def test_the_curve_that_made_the_data_is_found_again():
    cosines = np.linspace(0, 0.3, 60)
    assert fit(cosines, 1 - 1 / (1 + np.exp((cosines - 0.15) / 0.04))) == (0.15, 0.04)


def test_the_published_fit_is_the_one_that_the_registry_uses():
    """A new calibration that nobody carried over into the code would publish figures of another score."""
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    assert found["fit"] == {"half_lost": compatibility._HALF_LOST, "spread": compatibility._SPREAD}
    for row in found["rows"]:
        odds = np.exp((row["cosine"] - compatibility._HALF_LOST) / compatibility._SPREAD)
        assert row["interference"] == pytest.approx(1 / (1 + odds), abs=2e-3)
