"""docs/benchmarks.md says what the result files say."""

from __future__ import annotations

import subprocess
import sys

from benchmarks import page
from benchmarks.__main__ import AREAS, CHECKOUT, PAGE, RESULTS
from benchmarks.rows import AreaResult, Target, judge, load_all
from tests.unit.benchmarks.bench_kit import MACHINE


def test_the_committed_page_is_that_of_the_committed_results():
    """Run `python -m benchmarks --docs` when this fails."""
    assert PAGE.read_text(encoding="utf-8") == page.render(load_all(RESULTS, AREAS))


RECORDS = {"compatibility.json", "separation.json", "soak.json"}
"""What lies beside the areas' results: raw rows of a calibration, the table of the judge, and the outcomes of soaks."""


def test_committed_results_are_of_known_areas_measured_in_full():
    results = [AreaResult.load(path) for path in RESULTS.glob("*.json") if path.name not in RECORDS]
    assert {result.area for result in results} <= set(AREAS)
    assert not [row.figure for result in results for row in result.rows if "--quick" in row.command]


def test_a_missed_target_and_an_unjudged_one_are_shown_as_such():
    def row(name, ours, **fields):
        return judge(name, "s", ours, command="python -m benchmarks --area store", machine=MACHINE, **fields)

    rows = (
        row("fast", 1.0, target=Target(2), peer=4.0, peer_name="rival"),
        row("slow", 3.0, target=Target(2)),
        row("elsewhere", None, target=Target(2), reason="no such device"),
        row("rival not here", None, reason="it is not installed"),
        row("four cores", 3.0, target=Target(2, cores=4)),
        row("for the record", 3.0),
    )
    text = page.render([AreaResult("store", MACHINE, 1.0, rows)])
    assert "| fast | 1 s | 4 s (rival) | 0.25 | ≤ 2 | ✓ |" in text
    assert "| slow | 3 s |  |  | ≤ 2 | ✗ |" in text
    assert "| elsewhere | not measured |  |  | ≤ 2 | – |" in text
    assert "Not measured, elsewhere: no such device." in text
    assert "Not measured, rival not here: it is not installed." in text
    assert "Not judged, four cores: the target is for 4 CPU cores, this machine has 2." in text
    assert "for the record:" not in text
    assert "1 of 2 targets are met." in text


def test_the_list_names_every_area_and_each_has_its_module():
    command = [sys.executable, "-m", "benchmarks", "--list"]
    listed = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(AREAS)
    modules = {path.stem for path in (CHECKOUT / "benchmarks" / "areas").glob("*.py")} - {"__init__"}
    assert modules == set(AREAS)
