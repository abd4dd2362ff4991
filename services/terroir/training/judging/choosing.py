"""From a finished run to what it publishes: the checkpoint that the judgement chose, or the last where it is off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from PIL import Image

from terroir.common.clock import Clock
from terroir.training.artifacts.checkpoints import Checkpoints
from terroir.training.config import PublishGate
from terroir.training.engine.ports import Sinks, Stopped, TrainProgress, TrainResult
from terroir.training.engine.state import adapter_in
from terroir.training.judging.drawing import Sketch
from terroir.training.judging.gate import RatingScores, ensure_publishable
from terroir.training.judging.judgement import Judgement
from terroir.training.judging.kept import KeptJudgements
from terroir.training.judging.models import judge_model
from terroir.training.judging.run import Hears, JudgedRun, judge_run, recipe_of

_REPORT_SECONDS: Final = 0.5
_FIRST_RATING_SEED: Final = 3000
"""Raters see other pictures than the judgement."""


@dataclass(frozen=True)
class Kept:
    """Where a run keeps its checkpoints and what is found out about them."""

    checkpoints: Checkpoints
    judgements: KeptJudgements
    op_id: str
    """Names this judgement, so that a repeat writes no second one."""


@dataclass(frozen=True)
class People:
    """What the publish gate needs to know of raters."""

    scores: Callable[[], RatingScores | None] = lambda: None
    """What they said, once enough did."""
    keep: Callable[[Sequence[tuple[Sketch, Image.Image]]], None] = lambda _: None
    """Keeps pictures for their sheets."""


def choose(
    result: TrainResult, run: JudgedRun, kept: Kept, sinks: Sinks, clock: Clock, people: People
) -> tuple[TrainResult, Judgement | None]:
    """What to publish, and the judgement that says so; as trained and None where `publish_gate` is off.

    Raises StyleRefused, RatingMissing, JudgeModelMissing, PromptsUnreadable, Stopped, and what a studio raises. The
    judgement is kept before any of the first two.
    """
    if run.config.publish_gate is PublishGate.OFF:
        return result, None
    judgement = judge_run(run, kept.checkpoints, kept.judgements, Reports(sinks, clock, result))
    kept.judgements.record(judgement, kept.op_id)
    for step, judged in ((one.step, one.scores) for one in judgement.checkpoints):
        if judged is not None:
            figures = {name.replace("judge_", "judge/", 1): value for name, value in judged.metrics().items()}
            sinks.scalars(step, figures)
    sinks.log(_told(judgement))
    scores = people.scores() if run.config.rating_gate else None
    chosen = _chosen(result, kept, judgement)
    if run.config.rating_gate and scores is None and judgement.chosen is not None:
        people.keep(_for_raters(run, chosen))
    ensure_publishable(judgement, rating_gate=run.config.rating_gate, people=scores)
    return chosen, judgement


class Reports(Hears):
    """Tells a run's sinks of its judgement: phase, pictures, time left."""

    def __init__(self, sinks: Sinks, clock: Clock, result: TrainResult) -> None:
        self._sinks, self._clock = sinks, clock
        self._trained = TrainProgress("judging", step=result.steps, total_steps=result.steps, loss=result.loss)
        self._since = clock.monotonic()
        self._reported = float("-inf")

    def drawn(self, done: int, total: int) -> None:
        """Report at most about twice a second."""
        now = self._clock.monotonic()
        if done and done < total and now - self._reported < _REPORT_SECONDS:
            return
        self._reported = now
        left = (now - self._since) / done * (total - done) if done else 0.0
        self._sinks.progress(replace(self._trained, drawn=done, to_draw=total, eta_seconds=left))

    def alive(self) -> None:
        """Raises Stopped on request."""
        if self._sinks.stop_requested():
            raise Stopped(self._trained.step)

    def log(self, line: str) -> None:
        """One line for people."""
        self._sinks.log(line)


def _chosen(result: TrainResult, kept: Kept, judgement: Judgement) -> TrainResult:
    step = judgement.chosen_step
    if step in (0, result.steps):
        return result
    saved = next(one for one in kept.checkpoints.listed() if one.step == step)
    checkpoint = kept.checkpoints.load(saved)
    return replace(result, adapter=adapter_in(checkpoint), steps=step, loss=checkpoint.loss)


def _for_raters(run: JudgedRun, chosen: TrainResult) -> list[tuple[Sketch, Image.Image]]:
    """The held-out prompts once more, with seeds of their own."""
    recipe = recipe_of(run, judge_model(run.base.digest, run.judge_model))
    sketches = [Sketch(one.prompt, _FIRST_RATING_SEED + number) for number, one in enumerate(recipe.held_out)]
    studio = run.studio(run.base.folder, run.device)
    pictures = studio.draw(chosen.adapter, sketches, recipe.manner, lambda _: None, lambda: None)
    return list(zip(sketches, pictures, strict=True))


def _told(judgement: Judgement) -> str:
    chosen = f"step {judgement.chosen_step} is chosen" if judgement.chosen_step else "no checkpoint is chosen"
    left = f", {len(judgement.left_out)} earlier ones needed no look" if judgement.left_out else ""
    return (
        f"judged {len(judgement.checkpoints)} checkpoints in {judgement.seconds:.0f} s with {judgement.pictures} "
        f"pictures{left}: {judgement.verdict}, {chosen}"
    )
