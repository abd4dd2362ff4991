"""The judgement of one run, from its checkpoints to the one that is published; the same on Ray and on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch

from terroir.lora.adapter import Adapter
from terroir.scoring.clip import ClipScorer
from terroir.scoring.embedding import TextEmbedder
from terroir.scoring.model_digest import model_digest
from terroir.training.artifacts.checkpoints import Checkpoints, SavedCheckpoint
from terroir.training.config import TrainConfig
from terroir.training.engine.data.pictures import decode
from terroir.training.engine.ports import Pictures
from terroir.training.engine.state import adapter_in
from terroir.training.judging.drawing import Manner, Studio
from terroir.training.judging.gate import advice_on, chosen_step
from terroir.training.judging.judge import Candidate, Draws, Judge, TrainedOn
from terroir.training.judging.judgement import JudgedCheckpoint, Judgement
from terroir.training.judging.kept import KeptJudgements
from terroir.training.judging.models import judge_model
from terroir.training.judging.prompts import Base, texts_of
from terroir.training.judging.recipe import STEPS, Recipe, pictures_digest
from terroir.training.judging.verdicts import Thresholds, is_settled

_COMPARED: Final = (384, 384)
"""Pixels across and down."""


@dataclass(frozen=True)
class JudgedRun:
    """What is judged, and with what."""

    config: TrainConfig
    base: Base
    trigger: str
    data: Pictures
    device: str = "cpu"
    judge_model: Path | None = None
    """transformers CLIP folder; None: the embedded one, which knows the embedded base's world alone."""
    guidance_scale: float = 3.0
    threads: int = 1
    """Of a processor that draws."""
    studio: Callable[[Path, str], Draws] = Studio
    """Loads what draws, from the base's folder, on a device."""
    scorer: Callable[[Path, str], TextEmbedder] = ClipScorer
    """Loads the CLIP that judges."""


class Hears:
    """What a judgement tells while it goes on; each method may be replaced."""

    def drawn(self, done: int, total: int) -> None:
        """Pictures drawn so far; may raise to stop."""

    def alive(self) -> None:
        """Between any two steps of drawing; may raise to stop."""

    def log(self, line: str) -> None:
        """One line for people."""


def judge_run(run: JudgedRun, checkpoints: Checkpoints, kept: KeptJudgements, hears: Hears) -> Judgement:
    """Measure checkpoints spread over the run, the last first, until the best of them is known; give verdicts, choose.

    What was measured before is not drawn again.

    Raises JudgeModelMissing, PromptsUnreadable, and what the studio raises.
    """
    since = time.monotonic()
    model = judge_model(run.base.digest, run.judge_model)
    recipe = recipe_of(run, model)
    candidates = [
        _candidate(checkpoints, saved) for saved in spread(checkpoints.listed(), run.config.judge_checkpoints)
    ]
    count = _Count(hears)
    judge = Judge(
        partial(run.studio, run.base.folder, run.device), partial(run.scorer, model, run.device), recipe,
        trained_on(run.data), kept, count.add, hears.alive,
    )  # fmt: skip
    known = {candidate.step: judge.known(candidate) for candidate in candidates}
    new = [candidate for candidate in candidates if known[candidate.step] is None]
    count.total = len(new) * recipe.pictures_a_checkpoint
    if new and kept.base_pictures(recipe.base_pictures_digest(), len(recipe.of_base)) is None:
        count.total += len(recipe.of_base)
    hears.drawn(0, count.total)
    thresholds, judged, left = Thresholds.of(run.config), list[JudgedCheckpoint](), candidates[::-1]
    with computing_threads(run.threads):
        while left and not is_settled(judged):
            candidate = left.pop(0)
            measured = known[candidate.step] or judge.measure(candidate)
            one = JudgedCheckpoint.of(candidate.step, candidate.digest, measured, thresholds)
            judged.insert(0, one)
            hears.log(told(one))
    hears.drawn(count.done, count.done)  # the total was the most that doubts could ask for
    gate = run.config.publish_gate
    return Judgement(
        checkpoints=tuple(judged),
        thresholds=thresholds,
        chosen_step=chosen_step(judged, gate),
        gate=gate.value,
        recipe=recipe.digest(),
        pictures=count.done,
        seconds=round(time.monotonic() - since, 2),
        advice=advice_on(judged, run.config),
        prompts=recipe.texts.held_out,
        left_out=tuple(candidate.step for candidate in reversed(left)),
    )


def recipe_of(run: JudgedRun, model: Path) -> Recipe:
    """What is drawn for a run and what it is compared with; raises PromptsUnreadable."""
    captions = [picture.caption for picture in run.data]
    return Recipe(
        base=run.base.digest,
        model=model_digest(model),
        pictures=pictures_digest(run.data),
        texts=texts_of(run.base, run.config.judge_prompts, captions, run.trigger),
        seeds=run.config.judge_seeds,
        max_memorisation=run.config.max_memorisation,
        manner=Manner(steps=STEPS, guidance_scale=run.guidance_scale),
    )


def spread(saved: Sequence[SavedCheckpoint], count: int) -> list[SavedCheckpoint]:
    """At most `count` checkpoints, evenly over the run by their number, by step; the last is one of them."""
    ordered = sorted(saved, key=lambda one: one.step)
    wanted = min(count, len(ordered))
    return [ordered[(number + 1) * len(ordered) // wanted - 1] for number in range(wanted)]


def told(judged: JudgedCheckpoint) -> str:
    """One line of the log."""
    scores = judged.scores
    if scores is None:
        return f"step {judged.step}: {judged.verdict} ({judged.measured.broken})"
    return (
        f"step {judged.step}: {judged.verdict}, style gain {scores.style_gain:.2f}, prompt agreement "
        f"{scores.prompt_agreement:.2f}, diversity {scores.diversity:.2f}, copies {scores.memorisation:.0%} of "
        f"{scores.recalled} ({judged.measured.pictures} pictures, {judged.measured.seconds:.0f} s)"
    )


@contextmanager
def computing_threads(count: int) -> Iterator[None]:
    """Threads of a processor for as long as it lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Count:
    def __init__(self, hears: Hears) -> None:
        self.done = self.total = 0
        self._hears = hears

    def add(self, pictures: int) -> None:
        self.done += pictures
        self._hears.drawn(self.done, self.total)


def _candidate(checkpoints: Checkpoints, saved: SavedCheckpoint) -> Candidate:
    def load() -> Adapter:
        return adapter_in(checkpoints.load(saved))

    return Candidate(saved.step, saved.digest, load)


def trained_on(data: Pictures) -> TrainedOn:
    """A run's pictures as they are compared with."""
    pictures = [decode(picture).rgb for picture in data]
    for picture in pictures:
        picture.thumbnail(_COMPARED)  # CLIP looks at no more, and a large set stays small in memory
    return TrainedOn(pictures, [picture.name for picture in data])
