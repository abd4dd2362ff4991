"""Ask for advice: by symptom, by the reason of an error, by a verdict, by a loss curve."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from terroir.training.advice.losses import SCATTER, rises, scatter, stays
from terroir.training.advice.rows import ROWS
from terroir.training.advice.values import Advice, Symptom
from terroir.training.config import TrainConfig

_BY_REASON: Final[Mapping[str, Symptom]] = {
    "OUT_OF_MEMORY": Symptom.OUT_OF_MEMORY,
    "NON_FINITE_LOSS": Symptom.NON_FINITE,
}
_BY_THRESHOLD: Final[Mapping[str, Symptom]] = {
    "max_memorisation": Symptom.OVER_FITTED,
    "min_diversity": Symptom.LITTLE_VARIETY,
    "min_prompt_agreement": Symptom.CAPTIONS_IGNORED,
    "min_style_gain": Symptom.TOO_WEAK,
}
"""Thresholds of a judgement, the gravest failure first."""


def for_symptom(symptom: Symptom, config: TrainConfig) -> Advice:
    """What this run could change about a symptom; what changes nothing for it is left out."""
    row = ROWS[symptom]
    tries = (remedy.of(config) for remedy in row.remedies)
    return Advice(symptom, row.title, tuple(one for one in tries if one is not None))


def for_reason(reason: str, config: TrainConfig) -> Advice | None:
    """Advice on an error's reason code, such as `OUT_OF_MEMORY`, if there is any."""
    symptom = _BY_REASON.get(reason)
    return None if symptom is None else for_symptom(symptom, config)


def for_verdict(failed: Collection[str], config: TrainConfig) -> tuple[Advice, ...]:
    """Advice on the thresholds that a checkpoint failed, by their keys (`min_style_gain` …), the gravest first.

    A style that is weak and learnt by heart at once gets no advice to train longer.
    """
    symptoms = [symptom for key, symptom in _BY_THRESHOLD.items() if key in failed]
    if Symptom.OVER_FITTED in symptoms and Symptom.TOO_WEAK in symptoms:
        symptoms.remove(Symptom.TOO_WEAK)
    return tuple(for_symptom(symptom, config) for symptom in symptoms)


def for_losses(losses: Sequence[float], config: TrainConfig) -> Advice | None:
    """Advice on the loss of every step so far, if it rises, scatters more than is usual, or does not fall at all."""
    if rises(losses):
        return for_symptom(Symptom.DIVERGING, config)
    if scatter(losses) > SCATTER:
        return for_symptom(Symptom.NOISY_LOSS, config)
    if stays(losses):
        return for_symptom(Symptom.FLAT_LOSS, config)
    return None


def hint(losses: Sequence[float], config: TrainConfig) -> str:
    """That advice in one sentence for the end of a run; empty if there is none."""
    told = for_losses(losses, config)
    return "" if told is None else f"{told.title}: {told.sentence(most=2)} ({told.page})"
