"""How a picture of the drawn world looks: palette, line, wash, glow and grain.

`BASE` is the look that the tiny base model's denoiser learns. `random_look` covers a wide space of other looks, which
the autoencoder must be able to decode, because it decodes every style that an adapter will ever teach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """Parameters of the drawing. Colours are RGB in 0 … 1, lengths are pixels of the finished picture."""

    outline: Rgb = (0.13, 0.10, 0.12)
    outline_width: float = 0.9
    outline_opacity: float = 1.0
    wobble: float = 0.0
    """Hand tremor: how far the corners of shapes move."""
    duotone: float = 0.0
    """How far colours are replaced by the gradient `dark` → `middle` → `light` at their luminance."""
    dark: Rgb = (0.0, 0.0, 0.0)
    middle: Rgb = (0.5, 0.5, 0.5)
    light: Rgb = (1.0, 1.0, 1.0)
    saturation: float = 1.0
    hue_turn: float = 0.0
    """Rotation of all hues, in turns."""
    gamma: float = 1.0
    invert: float = 0.0
    softness: float = 0.0
    """Radius of a blur over the colours, not over the lines."""
    wash: float = 0.0
    """Amplitude of slow uneven pigment."""
    glow: float = 0.0
    glow_radius: float = 2.0
    glow_colour: Rgb = (1.0, 0.8, 0.4)
    grain: float = 0.0
    hatch: float = 0.0
    hatch_period: float = 4.0
    hatch_angle: float = 0.6
    vignette: float = 0.0
    levels: int = 0
    """Number of tones a channel is reduced to; 0 leaves it smooth."""
    fill: float = 1.0
    """Opacity of the coloured areas over the paper colour `light`; 0 draws lines only."""


BASE: Final = Look()


def _colour(rng: np.random.Generator, low: float, high: float) -> Rgb:
    return (float(rng.uniform(low, high)), float(rng.uniform(low, high)), float(rng.uniform(low, high)))


def random_look(rng: np.random.Generator) -> Look:
    """A look drawn from a space that is wider than any one style; each effect is absent about half of the time."""

    def sometimes(value: float, share: float = 0.45) -> float:
        return float(value) if rng.random() < share else 0.0

    return Look(
        outline=_colour(rng, 0.0, 0.35) if rng.random() < 0.6 else _colour(rng, 0.0, 1.0),
        outline_width=float(rng.uniform(0.3, 2.0)),
        outline_opacity=float(rng.uniform(0.2, 1.0)) if rng.random() < 0.85 else 0.0,
        wobble=sometimes(rng.uniform(0.2, 1.2)),
        duotone=sometimes(rng.uniform(0.2, 1.0), 0.6),
        dark=_colour(rng, 0.0, 0.4),
        middle=_colour(rng, 0.1, 0.9),
        light=_colour(rng, 0.55, 1.0),
        saturation=float(rng.uniform(0.0, 1.5)),
        hue_turn=sometimes(rng.uniform(0.0, 1.0), 0.4),
        gamma=float(np.exp(rng.uniform(-0.5, 0.5))),
        invert=sometimes(1.0, 0.1),
        softness=sometimes(rng.uniform(0.3, 2.0), 0.4),
        wash=sometimes(rng.uniform(0.05, 0.3)),
        glow=sometimes(rng.uniform(0.2, 1.0), 0.35),
        glow_radius=float(rng.uniform(1.0, 4.0)),
        glow_colour=_colour(rng, 0.1, 1.0),
        grain=sometimes(rng.uniform(0.01, 0.06), 0.35),
        hatch=sometimes(rng.uniform(0.05, 0.25), 0.25),
        hatch_period=float(rng.uniform(3.0, 7.0)),
        hatch_angle=float(rng.uniform(0.0, np.pi)),
        vignette=sometimes(rng.uniform(0.1, 0.5), 0.25),
        levels=int(rng.integers(3, 7)) if rng.random() < 0.12 else 0,
        fill=float(rng.uniform(0.0, 1.0)) if rng.random() < 0.25 else 1.0,
    )


def describe(look: Look) -> str:
    """Name the most visible traits of a look in a few words, for the captions of the tiny CLIP; may be empty."""
    warmth = look.middle[0] - look.middle[2]
    traits = (
        (look.glow > 0.35, "glowing lines"),
        (look.fill < 0.45, "line drawing"),
        (look.saturation < 0.35 and look.duotone < 0.4, "grey tones"),
        (look.duotone > 0.45 and warmth > 0.25, "warm tones"),
        (look.duotone > 0.45 and warmth < -0.25, "cold tones"),
        (look.softness > 1.0 or look.wash > 0.12, "soft wash"),
        (look.hatch > 0.1, "hatching"),
        (look.grain > 0.03, "grainy"),
        (look.invert > 0.5, "negative"),
    )
    return ", ".join(words for present, words in traits if present)
