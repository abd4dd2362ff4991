"""An attempt of the service's worker, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from attempt_kit import AttemptBench
from training_kit import pictures

from terroir.scoring.training_print import TrainingPrint
from terroir.store.blobs import Blobs
from terroir.tiny import CLIP_DIR
from terroir.training.judging import run as judging
from terroir.training.judging.errors import RatingMissing
from terroir.training.rating.keeping import KeptDrawings


def test_regularisation_pictures_of_the_service_are_trained_on(sd_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`reg_dataset` was once checked, kept, and then not read by anybody."""

    def file(**keys: object) -> str:
        bench = AttemptBench(sd_dir, monkeypatch)
        bench.sets["datasets/plain"] = pictures(5)[3:]
        trained = bench.run(**keys)
        assert trained.training_print_digest == "" and any("no training print" in line for line in bench.lines)
        assert Blobs(bench.store).get(trained.file_digest)
        return trained.file_digest

    assert file() == file()
    assert file(reg_dataset="datasets/plain/versions/1", reg_share=0.5) != file()


@pytest.fixture
def judged(sd_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AttemptBench:
    """A base of random weights, judged on pictures of a single step."""
    monkeypatch.setattr(judging, "STEPS", 1)
    bench = AttemptBench(sd_dir, monkeypatch, judge_model=str(CLIP_DIR))
    bench.keys = {
        "publish_gate": "warn", "judge_seeds": 2, "judge_prompts": ["a hill", "a lake"], "judge_checkpoints": 2,
        "save_steps": 2,
    }  # fmt: skip
    return bench


def test_a_judged_attempt_hands_figures_on_and_the_next_draws_nothing(judged: AttemptBench) -> None:
    trained = judged.run()
    assert trained.steps in (2, 4) and trained.metrics["judge_recalled"] >= 20
    assert any("judged" in line and "is chosen" in line for line in judged.lines)
    assert len(TrainingPrint.from_bytes(Blobs(judged.store).get(trained.training_print_digest)).thumbnails) == 3
    again = judged.run()
    assert again == trained
    assert any("with 0 pictures" in line for line in judged.lines)


def test_a_run_that_people_shall_rate_waits_for_them_with_pictures_kept(judged: AttemptBench) -> None:
    with pytest.raises(RatingMissing, match="terroir train rate"):
        judged.run(rating_gate=True)
    assert [one.prompt for one in KeptDrawings(judged.store).of(judged.job_id)] == ["a hill"] * 2 + ["a lake"] * 2
