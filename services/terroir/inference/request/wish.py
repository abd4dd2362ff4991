"""A Generate request, checked: every limit in one place, before anything costs anything."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from terroir.common.errors import InvalidArgument
from terroir.common.validation import did_you_mean, ensure_range, ensure_text
from terroir.inference.admission.priority import Priority
from terroir.inference.delivery.provenance import ProvenanceProfile
from terroir.inference.engine.messages import SAMPLERS
from terroir.inference.request.cover_size import SIZE_MULTIPLE, AspectRatio, cover_size
from terroir.inference.request.prompt import MAX_WEIGHT, Tag, parse_prompt

MAX_STEPS: Final = 150
MAX_SEEDS: Final = 16
MAX_PROMPT_CHARACTERS: Final = 2000
_DEFAULT_STEPS: Final = 20
_DEFAULT_STRENGTH: Final = 0.6
_MAX_SEED: Final = 2**32 - 1


@dataclass(frozen=True)
class Limits:
    """What the operator and the base allow."""

    max_pixels: int
    native_resolution: int
    default_guidance_scale: float
    provenance_profile: ProvenanceProfile = ProvenanceProfile.PRIVATE
    """Where a request does not choose."""


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
    variants: int = 0
    aspect_ratio: AspectRatio | None = None
    init_picture: tuple[bytes, float] | None = None
    """File and strength."""
    variation: tuple[int, float] | None = None
    """Seed and strength."""
    provenance_profile: ProvenanceProfile | None = None


@dataclass(frozen=True)
class Variation:
    """Pictures near the one of another seed."""

    seed: int
    strength: float


@dataclass(frozen=True)
class InitPicture:
    """A picture to start from, not decoded yet."""

    data: bytes
    strength: float


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
    init_picture: InitPicture | None = None
    variation: Variation | None = None
    provenance_profile: ProvenanceProfile = ProvenanceProfile.PRIVATE

    @property
    def made_steps(self) -> int:
        """Steps that are really made: a picture to start from saves the first ones."""
        return self.steps if self.init_picture is None else max(1, int(self.steps * self.init_picture.strength))


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
        seeds=_seeds(raw.seeds, raw.variants),
        preview_interval_steps=int(ensure_range(raw.preview_interval_steps, "preview_interval_steps", 0, MAX_STEPS)),
        priority=raw.priority,
        init_picture=_init_picture(raw),
        variation=_variation(raw),
        provenance_profile=raw.provenance_profile or limits.provenance_profile,
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
    return cover_pixels(raw.width, raw.height, raw.aspect_ratio, limits)


def cover_pixels(width: int, height: int, ratio: AspectRatio | None, limits: Limits) -> tuple[int, int]:
    """Width and height of a picture, 0 filled in; raises InvalidArgument."""
    if ratio is not None and (width or height):
        raise InvalidArgument(
            "aspect_ratio and width or height contradict each other; give one of them",
            reason="CONFLICTING_SIZE",
            field="aspect_ratio",
        )
    native = cover_size(ratio or AspectRatio.SQUARE, limits.native_resolution)
    width, height = width or native[0], height or native[1]
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


def _init_picture(raw: RawWish) -> InitPicture | None:
    if raw.init_picture is None:
        return None
    data, strength = raw.init_picture
    if not data:
        raise InvalidArgument(
            "init_image has no data; send a PNG, JPEG or WebP file, or leave init_image out",
            reason="INIT_IMAGE_UNREADABLE",
            field="init_image.data",
        )
    return InitPicture(data, ensure_range(strength or _DEFAULT_STRENGTH, "init_image.strength", 1e-3, 1))


def _variation(raw: RawWish) -> Variation | None:
    if raw.variation is None:
        return None
    if raw.init_picture is not None:
        raise InvalidArgument(
            "init_image and variation contradict each other: one starts from a picture, the other from noise; give one",
            reason="CONFLICTING_START",
            field="variation",
        )
    seed, strength = raw.variation
    ensure_range(seed, "variation.seed", 0, _MAX_SEED)
    return Variation(seed, ensure_range(strength, "variation.strength", 0, 1))


def _seeds(seeds: tuple[int, ...], variants: int) -> tuple[int, ...]:
    """Given ones; after a single one the seeds that follow it; without any, random ones."""
    for count, field in ((len(seeds), "seeds"), (variants, "variants")):
        if count > MAX_SEEDS:
            raise InvalidArgument(
                f"{count} {field}, at most {MAX_SEEDS} are allowed; split the request",
                reason="TOO_MANY_SEEDS",
                field=field,
            )
    ensure_range(variants, "variants", 0, MAX_SEEDS)
    for index, seed in enumerate(seeds):
        ensure_range(seed, f"seeds[{index}]", 0, _MAX_SEED)
    if len(seeds) > 1 and variants not in (0, len(seeds)):
        raise InvalidArgument(
            f"{variants} variants and {len(seeds)} seeds contradict each other; give one seed, or leave variants out",
            reason="CONFLICTING_VARIANTS",
            field="variants",
        )
    if len(seeds) == 1:
        return tuple((seeds[0] + offset) % (_MAX_SEED + 1) for offset in range(max(1, variants)))
    return seeds or tuple(secrets.randbelow(_MAX_SEED + 1) for _ in range(max(1, variants)))
