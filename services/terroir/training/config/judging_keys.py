"""Keys of samples and of the judgement that decides what is published."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from terroir.training.config.limits import Line, Section, Share, Steps

Prompt = Annotated[Line, Field(min_length=1, max_length=500)]


class PublishGate(StrEnum):
    """What happens to an adapter that the judgement refuses."""

    ENFORCE = "enforce"
    WARN = "warn"
    OFF = "off"


class JudgingKeys(Section):
    """Samples and judgement."""

    sample_steps: Steps | None = Field(
        None,
        description="Optimiser steps between sample pictures. Unset: at every checkpoint, if sample_prompts is set.",
    )
    sample_prompts: tuple[Prompt, ...] = Field(
        (), max_length=16, description="Prompts drawn during training, always with the same seeds. Empty: none."
    )
    publish_gate: PublishGate = Field(
        PublishGate.OFF,
        description="`enforce` publishes the best checkpoint that passes and nothing if none does, `warn` the best in "
        "any case with its verdict, `off` the last without judging.",
    )
    judge_prompts: tuple[Prompt, ...] = Field(
        (),
        max_length=64,
        description="Held-out prompts to judge checkpoints on. Empty: the base's own, without what was trained on.",
    )
    judge_seeds: int = Field(
        4,
        ge=1,
        le=64,
        description="Pictures a prompt for style, agreement and diversity; memorisation takes ten at least.",
    )
    judge_checkpoints: int = Field(
        4, ge=1, le=64, description="Checkpoints that are judged, spread over the run; the last is one of them."
    )
    min_style_gain: Share = Field(
        0.15, description="Least share of the way from the base's look to the style's that a checkpoint must go."
    )
    min_prompt_agreement: Share = Field(
        0.8, description="Least agreement with the prompts, as a share of the base's own."
    )
    min_diversity: Share = Field(
        0.5, description="Least variety among pictures of one prompt, as a share of the base's own."
    )
    max_memorisation: Share = Field(
        0.05, description="Largest share of pictures that may be copies of a training picture."
    )
    rating_gate: bool = Field(
        False, description="Publish only once people have rated blind and their scores pass too (terroir train rate)."
    )
