"""The report of a run: one file, with everything that the run left."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from terroir.common.clock import FixedClock
from terroir.store.blobs import Blobs
from terroir.store.obstore_driver import MemoryStore
from terroir.training.artifacts.curves import Curves
from terroir.training.artifacts.samples import KeptSamples
from terroir.training.attempt.files import curves_key
from terroir.training.jobs.documents import Attempt, Job, JobFailure, JobState
from terroir.training.judging.evidence import grid, side_by_side
from terroir.training.judging.judgement import Evidence, JudgedCheckpoint, Judgement, Measured
from terroir.training.judging.kept import KeptJudgements, png
from terroir.training.judging.verdicts import Scores, Thresholds
from terroir.training.report.chart import line_chart
from terroir.training.report.events import curves_of
from terroir.training.report.gathering import job_report, read_curves

BOUNDS = Thresholds(min_style_gain=0.15, min_prompt_agreement=0.8, min_diversity=0.5, max_memorisation=0.05)
GOOD = Scores(0.5, 0.4, 0.9, 0.8, 0.0, 0.9, 0.1, 0.7, 20)
COPIES = Scores(0.6, 0.5, 0.9, 0.8, 0.65, 0.2, 0.02, 0.7, 20)


def square(colour: str) -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


@pytest.fixture
def store() -> MemoryStore:
    """A job of two attempts: the first was lost at step 4, the second went on from step 2."""
    store, clock = MemoryStore(), FixedClock()
    for attempt, steps in ((1, range(1, 5)), (2, range(3, 8))):
        with Curves(store, f"jobs/j/attempts/{attempt}", attempt, clock) as curves:
            for step in steps:
                curves.add(step, {"loss": attempt + step / 10, "learning_rate": 1e-4})
            curves.add_picture(steps[-1], "samples", square("red"))
    blobs = Blobs(store)
    pair = blobs.put(png(side_by_side(square("red"), square("blue"))))
    samples = blobs.put(png(grid([square("red"), square("green")], 2)))
    near = Evidence("a <red> house", 2001, "west lake.png", 0.21, 0.02, True, pair)
    checkpoints = (
        JudgedCheckpoint(4, "a", Measured(GOOD, evidence=(), pictures=44, seconds=2.0, samples=samples), ()),
        JudgedCheckpoint(7, "b", Measured(COPIES, evidence=(near,), samples=samples), ("max_memorisation",)),
    )
    judgement = Judgement(checkpoints, BOUNDS, 4, "enforce", "r", 88, 5.0, prompts=("a hill", "a lake"), left_out=(2,))
    KeptJudgements(store, "jobs/j", clock).record(judgement, "one")
    KeptSamples(store, "jobs/j").keep(4, grid([square("red")] * 2, 2))
    return store


def job(**changes: object) -> Job:
    facts = {
        "id": "j", "adapter": "ink", "base": "terroir-tiny", "dataset_version": "datasets/ink/versions/1",
        "config_yaml": "lora_rank: 8 # <b>", "created_at": "2026-01-01T00:00:00Z", "attempt": Attempt(2, "j-2", "ray"),
        "state": JobState.SUCCEEDED,
    }  # fmt: skip
    return Job(**{**facts, **changes})  # type: ignore[arg-type]


class Seen(HTMLParser):
    """What a browser would show and load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "circle", "polyline"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_report_shows_verdict_curves_samples_and_evidence_and_loads_nothing(store: MemoryStore) -> None:
    page = job_report(store, job(), FixedClock()).decode()
    seen = Seen(page)
    assert not seen.open, "every element is closed"
    assert seen.loads and all(one.startswith("data:image/") for one in seen.loads)
    text = " ".join(seen.texts)
    for told in ("Step 4 is published", "13 of 20", "memorised", "west lake.png", "a <red> house", "lora_rank: 8 # <b>",
                 "learning rate", "step 2", "Samples during training", "a hill; a lake"):  # fmt: skip
        assert told in text, told
    assert page.count("<svg") == 2 and '<tr class="chosen"><td>4</td>' in page


def test_a_failed_job_without_a_judgement_has_a_report_too() -> None:
    failed = job(state=JobState.FAILED, failure=JobFailure("NON_FINITE_LOSS", "lower learning_rate"), attempt=None)
    text = " ".join(Seen(job_report(MemoryStore(), failed, FixedClock()).decode()).texts)
    assert "NON_FINITE_LOSS: lower learning_rate" in text and "There is no judgement" in text


def test_curves_are_read_over_attempts_and_what_was_computed_again_counts(store: MemoryStore) -> None:
    curves = read_curves(store, [("jobs/j/attempts/1", 1), ("jobs/j/attempts/2", 2), ("jobs/j/attempts/3", 3)])
    assert set(curves) == {"loss", "learning_rate"}
    assert curves["loss"] == pytest.approx({1: 1.1, 2: 1.2, 3: 2.3, 4: 2.4, 5: 2.5, 6: 2.6, 7: 2.7})


def test_an_event_file_that_was_cut_is_read_as_far_as_it_goes(store: MemoryStore) -> None:
    whole = store.get(curves_key("jobs/j/attempts/1", 1))
    counts = [len(curves_of([whole[:length]]).get("loss", {})) for length in range(len(whole) + 1)]
    assert counts == sorted(counts) and counts[-1] == 4


def test_a_chart_stays_within_its_frame_and_skips_what_is_no_number() -> None:
    chart = line_chart({1: 5.0, 2: float("nan"), 3: 1.0, 4: float("inf"), 9: 2.0}, "loss & more", marked=3)
    ends = [tuple(map(float, end.split(","))) for end in re.findall(r'points="([^"]*)"', chart)[0].split()]
    assert len(ends) == 3 and all(0 <= x <= 460 and 0 <= y <= 210 for x, y in ends) and "loss &amp; more" in chart
    assert line_chart({}, "none") == "" and "circle" in line_chart({5: 0.1}, "one")
    assert line_chart({1: 0.0, 2: 0.0}, "flat")
