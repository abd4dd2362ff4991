"""A Generate request, checked: every limit in one place, before anything costs anything."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from terroir.common.errors import InvalidArgument
from terroir.common.validation import did_you_mean, ensure_range, ensure_text
from terroir.inference.engine.messages import SAMPLERS
from terroir.inference.priority import Priority
from terroir.inference.prompt import MAX_WEIGHT, Tag, parse_prompt

MAX_STEPS: Final = 150
MAX_SEEDS: Final = 16
MAX_PROMPT_CHARACTERS: Final = 2000
SIZE_MULTIPLE: Final = 8
_DEFAULT_STEPS: Final = 20
_MAX_SEED: Final = 2**32 - 1


@dataclass(frozen=True)
class Limits:
    """What the operator and the base allow."""

    max_pixels: int
    native_resolution: int
    default_guidance_scale: float


@dataclass(frozen=True)
class RawWish:
    """The fields of a request as they came; None is an absent field."""

    prompt: str
    negative_prompt: str
    adapters: tuple[tuple[str, float | None, float | None], ...]
    """Name, weight, text encoder weight."""
    region: str
    width: int
    height: int
    steps: int
    guidance_scale: float | None
    sampler: str
    seeds: tuple[int, ...]
    preview_interval_steps: int
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True)
class Wish:
    """What is to be drawn, all defaults filled in; adapters are not resolved yet."""

    prompt: str
    """Without tags."""
    negative_prompt: str
    adapters: tuple[Tag, ...]
    """Of the request, then of the prompt."""
    region: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    sampler: str
    seeds: tuple[int, ...]
    preview_interval_steps: int
    priority: Priority = Priority.NORMAL


def check_wish(raw: RawWish, limits: Limits) -> Wish:
    """Check and complete a request; raises InvalidArgument with a reason a cause."""
    ensure_text(raw.prompt, "prompt", MAX_PROMPT_CHARACTERS, min_length=1)
    ensure_text(raw.negative_prompt, "negative_prompt", MAX_PROMPT_CHARACTERS)
    parsed = parse_prompt(raw.prompt)
    width, height = _size(raw, limits)
    guidance = limits.default_guidance_scale if raw.guidance_scale is None else raw.guidance_scale
    return Wish(
        prompt=parsed.text,
        negative_prompt=raw.negative_prompt,
        adapters=(*_weights(raw), *parsed.tags),
        region=raw.region,
        width=width,
        height=height,
        steps=_steps(raw.steps),
        guidance_scale=ensure_range(guidance, "guidance_scale", 1, 30),
        sampler=_sampler(raw.sampler),
        seeds=_seeds(raw.seeds),
        preview_interval_steps=int(ensure_range(raw.preview_interval_steps, "preview_interval_steps", 0, MAX_STEPS)),
        priority=raw.priority,
    )


def _weights(raw: RawWish) -> list[Tag]:
    entries = []
    for index, (name, weight, text_weight) in enumerate(raw.adapters):
        field = f"adapters[{index}]"
        weight = ensure_range(1.0 if weight is None else weight, f"{field}.weight", -MAX_WEIGHT, MAX_WEIGHT)
        text_weight = weight if text_weight is None else text_weight
        ensure_range(text_weight, f"{field}.text_encoder_weight", -MAX_WEIGHT, MAX_WEIGHT)
        entries.append(Tag(name, weight, text_weight))
    return entries


def _size(raw: RawWish, limits: Limits) -> tuple[int, int]:
    width, height = raw.width or limits.native_resolution, raw.height or limits.native_resolution
    for field, value in (("width", width), ("height", height)):
        if value < SIZE_MULTIPLE or value % SIZE_MULTIPLE:
            raise InvalidArgument(
                f"{field} {value} is not a positive multiple of {SIZE_MULTIPLE} pixels",
                reason="INVALID_SIZE",
                field=field,
            )
    if width * height > limits.max_pixels:
        raise InvalidArgument(
            f"{width} × {height} is {width * height} pixels, at most {limits.max_pixels} are allowed; "
            "ask for less or raise TERROIR_INFERENCE_MAX_PIXELS",
            reason="TOO_MANY_PIXELS",
            field="width",
        )
    return width, height


def _steps(steps: int) -> int:
    if not 0 <= steps <= MAX_STEPS:
        raise InvalidArgument(
            f"steps {steps} is outside 1 … {MAX_STEPS} (0 means {_DEFAULT_STEPS})",
            reason="TOO_MANY_STEPS" if steps > 0 else "OUT_OF_RANGE",
            field="steps",
        )
    return steps or _DEFAULT_STEPS


def _sampler(name: str) -> str:
    if name and name not in SAMPLERS:
        raise InvalidArgument(
            f"sampler {name[:40]!r} is unknown{did_you_mean(name, SAMPLERS)}; use one of {', '.join(SAMPLERS)}",
            reason="UNKNOWN_SAMPLER",
            field="sampler",
        )
    return name or SAMPLERS[0]


def _seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(seeds) > MAX_SEEDS:
        raise InvalidArgument(
            f"{len(seeds)} seeds, at most {MAX_SEEDS} are allowed; split the request",
            reason="TOO_MANY_SEEDS",
            field="seeds",
        )
    for index, seed in enumerate(seeds):
        ensure_range(seed, f"seeds[{index}]", 0, _MAX_SEED)
    return seeds or (secrets.randbelow(_MAX_SEED + 1),)
