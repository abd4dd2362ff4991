"""Looks of the example styles: the base model and its autoencoder never see them in training."""

from __future__ import annotations

from typing import Final

from terroir.tiny.world.look import Look

JIANGNAN_INK: Final = Look(
    outline=(0.15, 0.19, 0.22),
    outline_width=1.1,
    outline_opacity=0.8,
    wobble=0.3,
    duotone=0.82,
    dark=(0.12, 0.17, 0.21),
    middle=(0.55, 0.63, 0.63),
    light=(0.96, 0.94, 0.87),
    saturation=0.55,
    softness=0.8,
    wash=0.08,
    grain=0.01,
)
"""Wet ink on rice paper: muted blue-greys, soft edges, uneven pigment."""

SICHUAN_HOTPOT: Final = Look(
    outline=(0.36, 0.04, 0.03),
    outline_width=1.2,
    duotone=0.62,
    dark=(0.18, 0.03, 0.05),
    middle=(0.82, 0.26, 0.10),
    light=(1.0, 0.87, 0.48),
    glow=0.5,
    glow_radius=2.0,
    glow_colour=(1.0, 0.45, 0.10),
    vignette=0.25,
)
"""A hotpot kitchen at night: chilli reds, lamp-lit yellow, dark red lines that glow."""

NEON: Final = Look(
    outline=(0.25, 0.95, 0.95),
    duotone=0.75,
    dark=(0.04, 0.02, 0.12),
    middle=(0.27, 0.11, 0.45),
    light=(0.55, 0.75, 0.95),
    gamma=1.5,
    glow=0.9,
    glow_colour=(0.9, 0.2, 0.9),
)
"""Neon signs in rain: only used to judge what the autoencoder can decode."""
