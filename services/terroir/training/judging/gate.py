"""Whether a judged run is published, and with which checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from terroir.training import advice
from terroir.training.config import PublishGate, TrainConfig
from terroir.training.judging.errors import RatingMissing, StyleRefused
from terroir.training.judging.judgement import JudgedCheckpoint, Judgement
from terroir.training.judging.verdicts import Verdict, best_of, least_bad


@dataclass(frozen=True)
class RatingScores:
    """What people found in a blind rating; see `terroir train rate`."""

    raters: int
    passes: bool
    summary: str
    """For the message of a refusal, such as `on brand 41 %, at least 60 % are asked for`."""


def chosen_step(judged: Sequence[JudgedCheckpoint], gate: PublishGate) -> int:
    """The checkpoint to publish: the best that passes, or under `warn` the least bad one; 0 if there is none."""
    chosen = best_of(judged) if gate is PublishGate.ENFORCE else least_bad(judged)
    return chosen.step if chosen else 0


def advice_on(judged: Sequence[JudgedCheckpoint], config: TrainConfig) -> tuple[str, ...]:
    """What to try where nothing passes, told of the checkpoint that comes closest."""
    if best_of(judged):
        return ()
    closest = least_bad(judged)
    if closest is None:
        told = advice.for_reason("NON_FINITE_LOSS", config)
        return (told.sentence(),) if told else ()
    return tuple(one.sentence() for one in advice.for_verdict(closest.failed, config))


def ensure_publishable(judgement: Judgement, *, rating_gate: bool = False, people: RatingScores | None = None) -> None:
    """Raise StyleRefused with the figures and what to try, or RatingMissing, unless the chosen checkpoint may go out.

    People decide beside the figures, not instead of them.
    """
    if judgement.chosen is None:
        raise StyleRefused(_refusal(judgement), metadata={"verdict": judgement.verdict.value})
    if not rating_gate:
        return
    if people is None:
        raise RatingMissing(
            f"step {judgement.chosen_step} passes by its figures and rating_gate asks for people: rate it "
            "(terroir train rate), or train without rating_gate"
        )
    if not people.passes:
        raise StyleRefused(
            f"{people.raters} people refused step {judgement.chosen_step}: {people.summary}",
            metadata={"verdict": "rated"},
        )


def _refusal(judgement: Judgement) -> str:
    closest = least_bad(judgement.checkpoints) or judgement.checkpoints[-1]
    tries = "; ".join(judgement.advice) or "look at the evidence and change the run"
    return (
        f"none of {len(judgement.checkpoints)} judged checkpoints passes; the closest is step {closest.step}, "
        f"{closest.verdict}: {_missed(closest, judgement)}. {tries[0].upper()}{tries[1:]} (figures and evidence: "
        "terroir train verdict)"
    )


def _missed(closest: JudgedCheckpoint, judgement: Judgement) -> str:
    scores, bounds = closest.scores, judgement.thresholds
    if scores is None or closest.verdict is Verdict.BROKEN:
        return closest.measured.broken
    found = {
        "max_memorisation": f"{scores.memorisation:.0%} of its pictures copy a training picture, at most "
        f"{bounds.max_memorisation:.0%} may (max_memorisation)",
        "min_prompt_agreement": f"prompt agreement {scores.prompt_agreement:.2f} of the base's, at least "
        f"{bounds.min_prompt_agreement:.2f} is asked for (min_prompt_agreement)",
        "min_diversity": f"diversity {scores.diversity:.2f} of the base's, at least {bounds.min_diversity:.2f} is "
        "asked for (min_diversity)",
        "min_style_gain": f"style gain {scores.style_gain:.2f}, at least {bounds.min_style_gain:.2f} is asked for "
        "(min_style_gain)",
    }
    return ", ".join(found[key] for key in closest.failed)
