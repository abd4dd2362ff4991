"""A job's training print: made once, of the pictures that were trained on, by the CLIP that judges."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drawing_kit import Run
from PIL import Image

from terroir.scoring.clip import ClipScorer
from terroir.scoring.copies import TrainingSet
from terroir.scoring.model_digest import model_digest
from terroir.scoring.training_print import TrainingPrint
from terroir.store.blobs import Blobs
from terroir.tiny import CLIP_DIR
from terroir.training.judging import training_print
from terroir.training.judging.prompts import Base
from terroir.training.judging.run import JudgedRun
from terroir.training.judging.training_print import kept_print


def printed(run: Run, judged: JudgedRun | None = None) -> tuple[str, list[str]]:
    """Digest of the print, and the log."""
    lines: list[str] = []
    return kept_print(judged or run.judged(publish_gate="off"), run.store, "jobs/one", lines.append), lines


def test_the_embedded_base_has_one_without_being_judged_and_it_recognises_its_pictures() -> None:
    run = Run()
    digest, lines = printed(run)
    known = TrainingPrint.from_bytes(Blobs(run.store).get(digest))
    pictures = [Image.open(io.BytesIO(one.data)).convert("RGB") for one in run.data]
    assert known.model == model_digest(CLIP_DIR) and len(known.thumbnails) == len(pictures) and not lines
    assert all(one.is_copy for one in TrainingSet(ClipScorer(CLIP_DIR), known).nearest(pictures))


def test_the_first_print_of_a_job_stays_whatever_a_later_attempt_would_make() -> None:
    """Its version may be published already, and a publish that is repeated must say the same."""
    run = Run()
    first, _ = printed(run)
    assert printed(run, replace(run.judged(publish_gate="off"), data=run.data[:2])) == (first, [])


def test_an_attempt_that_was_overtaken_hands_on_the_print_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    run, made = Run(), training_print._made

    def overtaken(judged: JudgedRun) -> bytes:
        run.store.create("jobs/one/training_print", b"f" * 64)
        return made(judged)

    monkeypatch.setattr(training_print, "_made", overtaken)
    assert printed(run) == ("f" * 64, [])


def test_without_a_clip_that_knows_the_base_there_is_none_and_the_log_says_why() -> None:
    run = Run()
    other = replace(run.judged(publish_gate="off"), base=Base(Path("elsewhere"), "0" * 64))
    digest, lines = printed(run, other)
    assert digest == "" and "no training print" in lines[0] and "TERROIR_TRAINING_JUDGE_MODEL" in lines[0]


def test_a_set_too_large_for_a_print_has_none_and_the_log_says_why() -> None:
    run = Run()
    asked = replace(run.judged(publish_gate="warn"), data=[run.data[0]] * 5000, scorer=_never)
    digest, lines = printed(run, asked)
    assert digest == "" and "of 5000 pictures" in lines[0]


def _never(*_: Any) -> ClipScorer:
    raise AssertionError("nothing is embedded for a print that there can't be")


def test_a_clip_that_can_not_be_loaded_costs_a_run_that_asked_for_no_judgement_nothing_but_its_print() -> None:
    run = Run()

    def broken(*_: Any) -> ClipScorer:
        raise OSError("no weights here")

    digest, lines = printed(run, replace(run.judged(publish_gate="off"), scorer=broken))
    assert digest == "" and lines == ["no training print: OSError: no weights here"]
    with pytest.raises(OSError, match="no weights"):
        printed(run, replace(run.judged(publish_gate="enforce"), scorer=broken))
