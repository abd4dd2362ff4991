"""The judge's figures are judged as the issue that asked for them says."""

from __future__ import annotations

import pytest

from benchmarks.areas import base
from benchmarks.bench import Bench
from tests.unit.benchmarks.bench_kit import MACHINE

OWN = "classifier on held-out renders"
MADE = "200 generated, captions never trained on"


def judged(tmp_path, **shares):
    figures = {
        OWN: {"subject": 0.5, "colour": 0.98, "scene": 1.0},
        MADE: {"subject": 0.85, "colour": 0.9, "scene": 0.1},
    }
    figures[MADE] |= shares
    bench = Bench("base", tmp_path, MACHINE, "python -m benchmarks --area base")
    return {row.figure: row for row in base.judgement_rows(bench, figures)}


def test_subject_and_colour_of_generated_pictures_have_targets_and_nothing_else(tmp_path):
    rows = judged(tmp_path)
    assert {name: row.met for name, row in rows.items() if row.target} == {
        f"subject named right, {MADE}": True,
        f"colour named right, {MADE}": True,
    }
    assert len(rows) == 6


@pytest.mark.parametrize(("attribute", "share"), [("subject", 0.849), ("colour", 0.899)])
def test_a_share_below_its_target_is_missed(tmp_path, attribute, share):
    assert judged(tmp_path, **{attribute: share})[f"{attribute} named right, {MADE}"].met is False


def test_the_classifiers_own_accuracy_stands_beside_each_share(tmp_path):
    row = judged(tmp_path)[f"colour named right, {MADE}"]
    assert (row.peer, row.peer_name) == (0.98, OWN)
