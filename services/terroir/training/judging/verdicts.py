"""What a checkpoint's scores say about it, and which checkpoint is the best: rules alone, no pictures."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeVar

from terroir.training.config import TrainConfig


class Verdict(StrEnum):
    """What a checkpoint is, the gravest first."""

    BROKEN = "broken"
    """It drives the base out of range: pictures are not finite."""
    MEMORISED = "memorised"
    """It draws training pictures again."""
    OVERFITTED = "overfitted"
    """It draws the same pictures whatever the prompt and the seed."""
    OFF_PROMPT = "off-prompt"
    """It does not draw what is asked for."""
    LOW_DIVERSITY = "low-diversity"
    """Seeds hardly change its pictures."""
    TOO_WEAK = "too-weak"
    """Its pictures look like the base's."""
    PASS = "pass"


@dataclass(frozen=True)
class Scores:
    """Figures of one checkpoint; shares are of what the base does with the same prompts and seeds."""

    style_gain: float
    """Share of the way from the base's look to the training set's, by CLIP and statistics; 0 the base, 1 the set."""
    clip_gain: float
    """The same by CLIP's set distance alone. Told, not judged: on few pictures it is noisy."""
    prompt_agreement: float
    """Share of the base's agreement with the prompts."""
    diversity: float
    """Share of the base's variety among the seeds of a prompt."""
    memorisation: float
    """Share of pictures, drawn from what the adapter was trained with, that are copies of a training picture."""
    nearest_pixels: float
    """Distance by pixels of the closest of those to a training picture."""
    nearest_embedding: float
    """Distance by embedding of the closest of those."""
    copy_bound: float
    """Distance by pixels up to which a picture is a copy: half of what real pictures of the set are apart."""
    recalled: int
    """Pictures that memorisation is the share of."""

    def metrics(self) -> Mapping[str, float]:
        """By the names under which a version carries them."""
        return {f"judge_{name}": round(value, 4) for name, value in asdict(self).items()}

    @property
    def quality(self) -> float:
        """Geometric mean of style, agreement and diversity, each within 0 … 1: the weakest of them counts most."""
        shares = (self.style_gain, self.prompt_agreement, self.diversity)
        return math.prod(min(1.0, max(0.0, share)) for share in shares) ** (1 / len(shares))


@dataclass(frozen=True)
class Thresholds:
    """Bounds of a run; the names are those of its keys."""

    min_style_gain: float
    min_prompt_agreement: float
    min_diversity: float
    max_memorisation: float

    @classmethod
    def of(cls, config: TrainConfig) -> Thresholds:
        """As the configuration has them."""
        return cls(config.min_style_gain, config.min_prompt_agreement, config.min_diversity, config.max_memorisation)

    def failed(self, scores: Scores) -> tuple[str, ...]:
        """Keys of the bounds that the scores miss, the gravest first; a score that is no number misses its bound."""
        met = {
            "max_memorisation": scores.memorisation <= self.max_memorisation,
            "min_prompt_agreement": scores.prompt_agreement >= self.min_prompt_agreement,
            "min_diversity": scores.diversity >= self.min_diversity,
            "min_style_gain": scores.style_gain >= self.min_style_gain,
        }
        return tuple(key for key, within in met.items() if not within)


_VERDICTS: Final[Sequence[tuple[Collection[str], Verdict]]] = (
    ({"max_memorisation"}, Verdict.MEMORISED),
    ({"min_prompt_agreement", "min_diversity"}, Verdict.OVERFITTED),
    ({"min_prompt_agreement"}, Verdict.OFF_PROMPT),
    ({"min_diversity"}, Verdict.LOW_DIVERSITY),
    ({"min_style_gain"}, Verdict.TOO_WEAK),
    ((), Verdict.PASS),
)


def verdict_of(failed: Collection[str]) -> Verdict:
    """The gravest that the missed bounds amount to."""
    return next(verdict for keys, verdict in _VERDICTS if set(keys) <= set(failed))


class Ranked(Protocol):
    """A judged checkpoint, as far as ranking goes."""

    @property
    def step(self) -> int:
        """Optimiser step."""
        ...

    @property
    def verdict(self) -> Verdict:
        """What it is."""
        ...

    @property
    def scores(self) -> Scores | None:
        """Its figures; None for a broken one."""
        ...


R = TypeVar("R", bound=Ranked)
_ALIKE: Final = 0.02
"""Qualities that are closer than this are equal: about what other seeds change."""


def best_of(judged: Sequence[R]) -> R | None:
    """The passing checkpoint of the highest quality, the earliest among equals: it has learnt least by heart."""
    passing = [one for one in judged if one.verdict is Verdict.PASS]
    highest = max((_quality(one) for one in passing), default=0.0)
    return min((one for one in passing if _quality(one) >= highest - _ALIKE), key=lambda one: one.step, default=None)


def is_settled(judged: Sequence[R]) -> bool:
    """Whether checkpoints before these, which were judged from the last backwards, need no look.

    One passes, and the earliest is worse than it because it has learnt less: those before have learnt less still.
    """
    best, earliest = best_of(judged), min(judged, key=lambda one: one.step, default=None)
    if best is None or earliest is None or earliest.step == best.step:
        return False
    return earliest.verdict in (Verdict.PASS, Verdict.TOO_WEAK) and _quality(earliest) < _quality(best)


def least_bad(judged: Sequence[R]) -> R | None:
    """The best, or where none passes the one whose verdict is mildest, and of those that of the highest quality."""
    order = list(Verdict)
    whole = [one for one in judged if one.verdict is not Verdict.BROKEN]
    return best_of(judged) or max(whole, key=lambda one: (order.index(one.verdict), _quality(one)), default=None)


def _quality(one: Ranked) -> float:
    return one.scores.quality if one.scores else 0.0
