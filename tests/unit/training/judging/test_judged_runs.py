"""What a run's judgement finds, draws and keeps; pictures come from the tiny world's renderer, CLIP is the tiny one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from drawing_kit import Run, training_pictures
from training_kit import MemorySinks

from terroir.training.config import TrainConfig
from terroir.training.engine.ports import Stopped, TrainResult
from terroir.training.engine.state import adapter_in
from terroir.training.judging.choosing import Kept, People, choose
from terroir.training.judging.errors import JudgeModelMissing, NotJudged, PromptsUnreadable, RatingMissing, StyleRefused
from terroir.training.judging.gate import RatingScores
from terroir.training.judging.judgement import JudgedCheckpoint, Judgement, Measured
from terroir.training.judging.models import ensure_judgeable, tiny_digest
from terroir.training.judging.run import judge_run
from terroir.training.judging.verdicts import Scores, Thresholds

SCORES = Scores(
    style_gain=0.5, clip_gain=0.4, prompt_agreement=0.9, diversity=0.8, memorisation=0.0, nearest_pixels=0.9,
    nearest_embedding=0.1, copy_bound=0.7, recalled=40,
)  # fmt: skip


def judge(run: Run, **keys: Any) -> Judgement:
    return judge_run(run.judged(**keys), run.checkpoints, run.kept, run.hears())


def trained(run: Run) -> TrainResult:
    newest = run.checkpoints.newest()
    assert newest is not None
    return TrainResult(adapter_in(newest), newest.step, 0.1, 0, len(run.data), "sd1", "epsilon")


def chosen(
    run: Run, people: People | None = None, sinks: Any = None, **keys: Any
) -> tuple[TrainResult, Judgement | None]:
    kept = Kept(run.checkpoints, run.kept, "attempt/1")
    return choose(trained(run), run.judged(**keys), kept, sinks or MemorySinks(), run.clock, people or People())


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("healthy", "pass"), ("weak", "too-weak"), ("memorised", "memorised"), ("same", "overfitted"),
        ("deaf", "off-prompt"), ("broken", "broken"),
    ],
)  # fmt: skip
def test_each_kind_of_adapter_gets_its_verdict(kind: str, verdict: str) -> None:
    run = Run()
    run.save(kind)
    (one,) = judge(run).checkpoints
    assert one.verdict == verdict, one.scores


def test_the_last_checkpoint_is_looked_at_first_and_earlier_ones_only_until_the_best_is_known() -> None:
    run = Run()
    run.save("weak", "weak", "weak", "healthy")
    found = judge(run)
    assert [one.step for one in found.checkpoints] == [30, 40]
    assert (found.chosen_step, found.left_out) == (40, (10, 20))


def test_behind_checkpoints_that_fail_the_best_earlier_one_is_found() -> None:
    run = Run()
    run.save("weak", "healthy", "memorised", "memorised")
    found = judge(run)
    assert [one.verdict.value for one in found.checkpoints] == ["too-weak", "pass", "memorised", "memorised"]
    assert found.chosen_step == 20 and not found.left_out and not found.advice


def test_recall_stops_where_nothing_is_left_to_doubt() -> None:
    """Twenty pictures without a copy, or with more copies than all forty may have; each text with all ten seeds."""
    for kind in ("healthy", "memorised"):
        run = Run()
        run.save(kind)
        (one,) = judge(run).checkpoints
        assert one.scores is not None and one.scores.recalled == 20
        assert [count for of, count in run.studio.drawn if of == kind] == [24, 20]
        assert {found.seed for found in one.measured.evidence} <= set(range(2000, 2010))


def test_a_doubtful_first_round_is_followed_by_the_second() -> None:
    run = Run()
    run.save("memorised")
    (one,) = judge(run, max_memorisation=0.9).checkpoints
    assert one.scores is not None and one.scores.recalled == 40 and one.scores.memorisation > 0.9


def test_what_was_measured_is_not_drawn_again_by_a_later_attempt() -> None:
    run = Run()
    run.save("healthy")
    first = judge(run)
    run.studio.drawn.clear()
    assert judge(run).checkpoints == first.checkpoints and not run.studio.drawn
    run.save("healthy", "memorised")
    judge(run)
    assert {kind for kind, _ in run.studio.drawn} == {"memorised"}, "the base's pictures are kept too"


def test_progress_tells_pictures_and_a_stop_between_steps_ends_the_judgement() -> None:
    run = Run()
    run.save("healthy")
    judge(run)
    assert run.told[0] == (0, 24 + 24 + 40) and run.told[-2:] == [(24 + 24 + 20, 88), (68, 68)], "without the doubts"
    again = Run()
    again.save("healthy")
    sinks = MemorySinks(stop_at=0)
    with pytest.raises(Stopped):
        chosen(again, sinks=sinks)
    assert sinks.progresses[-1].phase == "judging"


def test_the_chosen_checkpoint_is_published_not_the_last() -> None:
    run = Run()
    run.save("healthy", "memorised")
    result, judgement = chosen(run)
    assert judgement is not None and judgement.chosen is not None and judgement.chosen.scores is not None
    assert result.steps == 10 and judgement.chosen.scores.metrics()["judge_memorisation"] == 0
    assert next(iter(result.adapter.modules.values())).up.flat[0] == 0, "the healthy kind's weight"
    assert run.kept.newest().chosen_step == 10


def test_a_run_without_a_passing_checkpoint_is_refused_with_figures_evidence_and_advice() -> None:
    run = Run()
    run.save("memorised")
    with pytest.raises(StyleRefused, match=r"memorised: \d+% of its pictures copy a training picture") as refused:
        chosen(run)
    assert refused.value.metadata["verdict"] == "memorised" and "fewer" in str(refused.value).lower()
    kept = run.kept.newest()
    evidence = kept.checkpoints[0].measured.evidence
    assert evidence[0].is_copy and evidence[0].training_picture.endswith(".png") and kept.advice
    assert run.kept.blobs.get(evidence[0].picture)[:4] == b"\x89PNG"


def test_warn_publishes_the_mildest_failure_with_its_verdict_and_off_judges_nothing() -> None:
    run = Run()
    run.save("weak", "memorised")
    result, judgement = chosen(run, publish_gate="warn")
    assert result.steps == 10 and judgement is not None and judgement.verdict == "too-weak"
    unjudged = Run()
    unjudged.save("memorised")
    result, none = chosen(unjudged, publish_gate="off")
    assert (result.steps, none, unjudged.studio.drawn) == (10, None, [])
    with pytest.raises(NotJudged, match="publish_gate is off"):
        unjudged.kept.newest()


def test_an_adapter_that_is_broken_all_along_is_refused_under_warn_too() -> None:
    run = Run()
    run.save("broken")
    with pytest.raises(StyleRefused, match="not finite"):
        chosen(run, publish_gate="warn")


def test_a_rating_gate_keeps_pictures_for_raters_waits_and_then_follows_them() -> None:
    run = Run()
    run.save("healthy")
    drawings: list[Any] = []

    def gated(scores: Callable[[], RatingScores | None]) -> TrainResult:
        return chosen(run, People(scores, drawings.extend), rating_gate=True)[0]

    with pytest.raises(RatingMissing, match="terroir train rate"):
        gated(lambda: None)
    assert len(drawings) == 24 and {sketch.seed >= 3000 for sketch, _ in drawings} == {True}
    with pytest.raises(StyleRefused, match="2 people refused step 10: on brand 40 %"):
        gated(lambda: RatingScores(2, False, "on brand 40 %"))
    assert gated(lambda: RatingScores(2, True, "")).steps == 10
    assert len(drawings) == 24, "nothing is drawn once people have spoken"


def test_prompts_that_are_all_captions_are_refused() -> None:
    run = Run()
    run.save("healthy")
    with pytest.raises(PromptsUnreadable, match="none is held out"):
        judge(run, judge_prompts=[run.data[0].caption.upper()])


def test_a_base_that_no_clip_is_set_for_is_told_before_training() -> None:
    judged = TrainConfig(publish_gate="enforce")
    ensure_judgeable(judged, tiny_digest(), "")
    ensure_judgeable(judged, "another", "/models/clip")
    ensure_judgeable(TrainConfig(publish_gate="off"), "another", "")
    with pytest.raises(JudgeModelMissing, match="TERROIR_TRAINING_JUDGE_MODEL"):
        ensure_judgeable(judged, "another", "")


def test_a_judgement_is_the_same_after_it_was_kept() -> None:
    run = Run(data=training_pictures(4))
    run.save("memorised", "broken")
    found = judge(run)
    run.kept.record(found, "attempt/1")
    run.kept.record(found, "attempt/1")
    assert run.kept.newest() == found


@pytest.mark.parametrize(
    ("key", "bound", "verdict"),
    [
        ("min_style_gain", 1.0, "too-weak"), ("min_prompt_agreement", 1.0, "off-prompt"),
        ("min_diversity", 1.0, "low-diversity"), ("max_memorisation", 0.0, "memorised"),
    ],
)  # fmt: skip
def test_a_bound_decides_what_passes(key: str, bound: float, verdict: str) -> None:
    scores = replace(SCORES, memorisation=0.025)
    for value, expected in ((getattr(Thresholds.of(TrainConfig()), key), "pass"), (bound, verdict)):
        measured = Measured(scores)
        assert JudgedCheckpoint.of(1, "d", measured, Thresholds.of(TrainConfig(**{key: value}))).verdict == expected


def test_prompts_seeds_and_checkpoints_of_a_judgement_are_chosen() -> None:
    run = Run()
    run.save("weak", "healthy", "healthy")
    prompts = ["a red fish by a river at night", "a green tower in the snow by day"]
    found = judge(run, judge_prompts=prompts, judge_seeds=2, judge_checkpoints=1)
    assert [one.step for one in found.checkpoints] == [30] and found.prompts == tuple(prompts)
    assert [count for kind, count in run.studio.drawn if kind == "healthy"] == [4, 20]
