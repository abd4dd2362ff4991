"""Measures checkpoints: what they draw, against the base, the training pictures and the prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from terroir.lora.adapter import Adapter
from terroir.scoring.agreement import PromptRuler
from terroir.scoring.copies import Nearest, TrainingSet
from terroir.scoring.embedding import Remembering, TextEmbedder, Vectors
from terroir.scoring.set_distance import squared_set_distance
from terroir.scoring.style import StyleRuler
from terroir.scoring.variety import Variety, variety
from terroir.training.judging.drawing import Manner, Sketch
from terroir.training.judging.errors import PictureNotFinite
from terroir.training.judging.evidence import evidence_of, grid
from terroir.training.judging.judgement import Measured
from terroir.training.judging.kept import KeptJudgements, png
from terroir.training.judging.recipe import Recipe
from terroir.training.judging.verdicts import Scores


class Draws(Protocol):
    """What a judge needs of a studio."""

    def draw(
        self,
        adapter: Adapter | None,
        sketches: Sequence[Sketch],
        manner: Manner,
        on_pictures: Callable[[int], None],
        before_step: Callable[[], None],
    ) -> list[Image.Image]:
        """One picture a sketch."""
        ...


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that may be published."""

    step: int
    digest: str
    """Of its state."""
    load: Callable[[], Adapter]


@dataclass(frozen=True)
class TrainedOn:
    """The training pictures, upright RGB, and their files' names."""

    pictures: Sequence[Image.Image]
    names: Sequence[str]


@dataclass(frozen=True)
class _Reference:
    """What checkpoints are measured against; made when the first of them needs it."""

    style: StyleRuler
    prompts: PromptRuler
    training: TrainingSet
    training_vectors: Vectors
    base_distance: float
    base_clip_distance: float
    base_agreement: float
    base_variety: Variety


@dataclass
class _Recalled:
    """Pictures that may be copies, each with its sketch and what it is nearest to."""

    sketches: list[Sketch] = field(default_factory=list)
    pictures: list[Image.Image] = field(default_factory=list)
    nearest: list[Nearest] = field(default_factory=list)

    def add(self, sketches: Sequence[Sketch], pictures: Sequence[Image.Image], nearest: Sequence[Nearest]) -> None:
        """One more round."""
        self.sketches += sketches
        self.pictures += pictures
        self.nearest += nearest


class Judge:
    """Measures checkpoints of one run by one recipe."""

    def __init__(
        self,
        studio: Callable[[], Draws],
        scorer: Callable[[], TextEmbedder],
        recipe: Recipe,
        trained_on: TrainedOn,
        kept: KeptJudgements,
        on_pictures: Callable[[int], None],
        before_step: Callable[[], None],
    ) -> None:
        """`studio` and `scorer` load what they return; the last two are the studio's, and may raise to stop."""
        self._studio = studio
        self._load_scorer = scorer
        self._recipe = recipe
        self._digest = recipe.digest()
        self._trained_on = trained_on
        self._kept = kept
        self._on_pictures = on_pictures
        self._before_step = before_step
        self._loaded: tuple[Draws, TextEmbedder, _Reference] | None = None

    def known(self, candidate: Candidate) -> Measured | None:
        """What is known of a checkpoint from an earlier judgement by the same recipe."""
        return self._kept.measured(self._digest, candidate.digest)

    def measure(self, candidate: Candidate) -> Measured:
        """Draw and measure a checkpoint, and keep the outcome; raises what the studio and `on_pictures` raise."""
        since = time.monotonic()
        try:
            measured = self._measure(candidate, since)
        except PictureNotFinite as error:
            measured = Measured(None, broken=str(error), seconds=_since(since))
        self._kept.keep(self._digest, candidate.digest, measured)
        return measured

    def _measure(self, candidate: Candidate, since: float) -> Measured:
        studio, scorer, reference = self._prepared()
        recipe, adapter = self._recipe, candidate.load()
        held_out = self._draw(studio, adapter, recipe.held_out)
        recalled = self._recall(studio, adapter, reference.training)
        nearest = recalled.nearest
        clip_distance = _set_distance(scorer.pictures(held_out), reference.training_vectors)
        scores = Scores(
            style_gain=_gain(reference.style.distance(held_out), reference.base_distance),
            clip_gain=_gain(clip_distance, reference.base_clip_distance),
            prompt_agreement=_share(
                reference.prompts.agreement(held_out, self._prompts_of_pictures()), reference.base_agreement
            ),
            diversity=variety(scorer, self._by_prompt(held_out)).share_of(reference.base_variety),
            memorisation=sum(one.is_copy for one in nearest) / len(nearest),
            nearest_pixels=min(one.pixels for one in nearest),
            nearest_embedding=min(one.embedding for one in nearest),
            copy_bound=reference.training.bounds.pixels,
            recalled=len(nearest),
        )
        evidence = evidence_of(
            recalled.sketches, recalled.pictures, nearest, self._trained_on.pictures, self._trained_on.names,
            self._kept.blobs,
        )  # fmt: skip
        return Measured(
            scores,
            evidence=evidence,
            pictures=len(held_out) + len(nearest),
            seconds=_since(since),
            samples=self._kept.blobs.put(png(grid(held_out, recipe.seeds))),
        )

    def _recall(self, studio: Draws, adapter: Adapter, training: TrainingSet) -> _Recalled:
        found = _Recalled()
        for sketches in self._recipe.recall_rounds:
            pictures = self._draw(studio, adapter, sketches)
            found.add(sketches, pictures, training.nearest(pictures))
            if self._recipe.recall_decided(sum(one.is_copy for one in found.nearest)):
                break
        return found

    def _draw(self, studio: Draws, adapter: Adapter | None, sketches: Sequence[Sketch]) -> list[Image.Image]:
        return studio.draw(adapter, sketches, self._recipe.manner, self._on_pictures, self._before_step)

    def _prepared(self) -> tuple[Draws, TextEmbedder, _Reference]:
        if self._loaded is None:
            studio, scorer = self._studio(), Remembering(self._load_scorer())
            self._loaded = studio, scorer, self._reference(studio, scorer)
        return self._loaded

    def _reference(self, studio: Draws, scorer: TextEmbedder) -> _Reference:
        recipe, pictures = self._recipe, self._trained_on.pictures
        base = self._base_pictures(studio)
        style = StyleRuler(scorer, pictures, base)
        prompts = PromptRuler(scorer, recipe.texts.held_out, recipe.texts.captions)
        vectors = scorer.pictures(pictures)
        return _Reference(
            style=style,
            prompts=prompts,
            training=TrainingSet.of(scorer, pictures, recipe.model),
            training_vectors=vectors,
            base_distance=style.distance(base),
            base_clip_distance=_set_distance(scorer.pictures(base), vectors),
            base_agreement=prompts.agreement(base, self._prompts_of_pictures()),
            base_variety=variety(scorer, self._by_prompt(base)),
        )

    def _base_pictures(self, studio: Draws) -> list[Image.Image]:
        sketches, digest = self._recipe.of_base, self._recipe.base_pictures_digest()
        found = self._kept.base_pictures(digest, len(sketches))
        if found is None:
            found = self._draw(studio, None, sketches)
            self._kept.keep_base_pictures(digest, found)
        return found

    def _prompts_of_pictures(self) -> list[str]:
        return [sketch.prompt for sketch in self._recipe.of_base]

    def _by_prompt(self, pictures: Sequence[Image.Image]) -> list[Sequence[Image.Image]]:
        seeds = self._recipe.seeds
        return [pictures[start : start + seeds] for start in range(0, len(pictures), seeds)]


def _set_distance(one: Vectors, other: Vectors) -> float:
    """In the vectors' own unit; a training set of one has no spread, so its only vector stands for itself twice."""
    pair = other if len(other) > 1 else other.repeat(2, axis=0)
    return float(max(0.0, squared_set_distance(one, pair)) ** 0.5)


def _gain(ours: float, base: float) -> float:
    """Share of the base's distance that is gone."""
    return 1 - ours / base if base > 0 else 0.0


def _share(ours: float, base: float) -> float:
    """A base that agrees with no prompt leaves nothing to lose: then ours counts as it is."""
    return ours / base if base > 0 else ours


def _since(start: float) -> float:
    return round(time.monotonic() - start, 2)
