"""A healthy run passes its judgement, and one of four pictures, each seen for ever, is refused for copying them.

Copies need a thousand steps: `make soak` trains 2,000 and asks for the verdicts. With fewer, such as here, what the
adapter recalls can only be seen to come nearer to the pictures.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.training.judged import DEMO, EXAMPLE, judged, over_trained
from benchmarks.training.one_side import pictures_of
from terroir.training.judging import run as judging
from terroir.training.judging.errors import StyleRefused
from terroir.training.judging.gate import ensure_publishable
from terroir.training.judging.judgement import Judgement
from terroir.training.judging.verdicts import Verdict

STEPS = int(os.environ.get("TERROIR_SOAK_SEPARATION_STEPS", "40"))
COPIES = 1000
"""Steps after which four pictures are known by heart."""
FEW_PICTURES: dict[str, Any] = {"judge_prompts": ["a red fish by a river at night"], "judge_seeds": 2}
"""Held out; what is recalled stays as it is."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def judgement(folder: Path, pictures: int | None, keys: dict[str, Any]) -> Judgement:
    return judged(folder, pictures_of(EXAMPLE)[:pictures], keys, threads=1).judgement


def test_an_over_trained_run_is_told_from_a_healthy_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if STEPS < COPIES:
        monkeypatch.setattr(judging, "STEPS", 5)  # half the time to draw
        early, late = judgement(tmp_path, 4, over_trained(STEPS) | FEW_PICTURES).checkpoints
        assert early.scores is not None and late.scores is not None
        assert late.scores.nearest_pixels < early.scores.nearest_pixels
        assert late.scores.nearest_embedding < early.scores.nearest_embedding
        return
    healthy = judgement(tmp_path / "healthy", None, DEMO)
    assert healthy.chosen is not None and healthy.verdict is Verdict.PASS, healthy.checkpoints
    ensure_publishable(healthy)
    over = judgement(tmp_path / "over", 4, over_trained(STEPS))
    assert over.checkpoints[-1].verdict is Verdict.MEMORISED and over.chosen is None, over.checkpoints
    with pytest.raises(StyleRefused) as refused:
        ensure_publishable(over)
    assert refused.value.metadata["verdict"] == "memorised"
