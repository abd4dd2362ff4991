"""The twelve subjects, each drawn with the parts that tell it apart made large.

All face one way: of two ways a small model draws the mean, a fish with two tails.
Every function draws inside the square -1 … 1 (y downwards) of a `Frame`; the colour is the one that the caption names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from terroir.tiny.world.canvas import Canvas, Point, mix
from terroir.tiny.world.look import Rgb

_INK: Final = (0.13, 0.10, 0.12)
_CREAM: Final = (0.98, 0.93, 0.80)
_WOOD: Final = (0.45, 0.30, 0.18)
_WHITE: Final = (1.0, 1.0, 1.0)

PAINT: Final[dict[str, Rgb]] = {
    "red": (0.86, 0.10, 0.12),
    "orange": (0.98, 0.52, 0.06),
    "yellow": (0.99, 0.87, 0.12),
    "green": (0.10, 0.58, 0.20),
    "blue": (0.12, 0.34, 0.88),
    "purple": (0.52, 0.16, 0.66),
    "pink": (1.00, 0.55, 0.74),
    "white": (0.97, 0.97, 0.97),
}


@dataclass(frozen=True)
class Frame:
    """A square of half-width `half` pixels about `centre`, on a canvas."""

    canvas: Canvas
    centre: Point
    half: float

    def at(self, x: float, y: float) -> Point:
        """Canvas point of a frame point."""
        return (self.centre[0] + x * self.half, self.centre[1] + y * self.half)

    def polygon(self, points: Sequence[Point], fill: Rgb, *, outlined: bool = True) -> None:
        """A closed shape."""
        self.canvas.polygon([self.at(x, y) for x, y in points], fill, outlined=outlined)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Rgb) -> None:
        """An upright rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Rgb, *, outlined: bool = True) -> None:
        """An upright ellipse."""
        self.canvas.ellipse(self.at(x, y), (rx * self.half, ry * self.half), fill, outlined=outlined)

    def stroke(self, points: Sequence[Point], colour: Rgb, width: float) -> None:
        """A coloured line; `width` is in half-widths of the frame."""
        self.canvas.stroke([self.at(x, y) for x, y in points], colour, width * self.half)

    def pen(self, points: Sequence[Point], weight: float = 0.7) -> None:
        """A line in the outline's ink."""
        self.canvas.pen([self.at(x, y) for x, y in points], weight)


def _arc(x: float, y: float, rx: float, ry: float, start: float, end: float, steps: int = 14) -> list[Point]:
    """Points on an ellipse from angle `start` to `end`, in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, end, steps))
    return [(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in angles]


def _house(f: Frame, c: Rgb) -> None:
    f.box(0.35, -0.95, 0.62, -0.2, mix(c, _INK, 0.45))
    f.box(-0.72, -0.12, 0.72, 0.95, c)
    f.polygon([(-1.0, -0.08), (0.0, -0.95), (1.0, -0.08)], mix(c, _INK, 0.42))
    f.box(-0.18, 0.32, 0.18, 0.95, _WOOD)
    f.box(-0.56, 0.14, -0.30, 0.44, _CREAM)
    f.box(0.30, 0.14, 0.56, 0.44, _CREAM)


def _pagoda(f: Frame, c: Rgb) -> None:
    f.pen([(0, -1.05), (0, -0.8)], 1.6)
    for top, width in ((0.36, 0.62), (-0.18, 0.46), (-0.68, 0.30)):
        f.box(-width * 0.72, top + 0.12, width * 0.72, top + 0.62, _CREAM)
    f.box(-0.14, 0.62, 0.14, 0.98, _WOOD)
    for y, width in ((0.50, 1.0), (-0.04, 0.80), (-0.56, 0.60)):
        f.polygon(
            [
                (-width, y - 0.12), (-width * 0.62, y - 0.02), (-width * 0.35, y - 0.32), (width * 0.35, y - 0.32),
                (width * 0.62, y - 0.02), (width, y - 0.12), (width * 0.7, y + 0.12), (-width * 0.7, y + 0.12),
            ],
            c,
        )  # fmt: skip


def _bridge(f: Frame, c: Rgb) -> None:
    deck = _arc(0, 0.75, 1.15, 0.95, 180, 360, 20)
    f.polygon([*deck, (0.62, 0.75), *_arc(0, 0.75, 0.62, 0.60, 360, 180, 16)], c)
    rail = _arc(0, 0.55, 1.05, 1.05, 195, 345, 9)
    for x, y in rail:
        f.pen([(x, y), (x, y + 0.28)], 1.0)
    f.stroke(rail, mix(c, _INK, 0.35), 0.12)
    f.pen([(x, y - 0.06) for x, y in rail], 0.8)
    f.pen(_arc(0, 0.75, 0.88, 0.78, 190, 350, 14), 0.5)


def _boat(f: Frame, c: Rgb) -> None:
    f.stroke([(0.0, 0.5), (0.0, -1.0)], _WOOD, 0.1)
    f.polygon([(0.08, -0.92), (0.85, 0.30), (0.08, 0.30)], mix(c, _WHITE, 0.35))
    f.polygon([(-0.08, -0.65), (-0.62, 0.30), (-0.08, 0.30)], mix(c, _WHITE, 0.55))
    f.polygon([(-1.05, 0.42), (1.05, 0.42), (0.68, 0.92), (-0.68, 0.92)], c)
    f.stroke([(-0.9, 0.58), (0.9, 0.58)], mix(c, _INK, 0.4), 0.1)


def _lantern(f: Frame, c: Rgb) -> None:
    f.pen([(0, -1.1), (0, -0.75)], 1.4)
    f.stroke([(0, 0.7), (0, 1.08)], mix(c, _INK, 0.3), 0.16)
    f.stroke([(-0.1, 0.8), (-0.12, 1.08)], mix(c, _INK, 0.3), 0.08)
    f.stroke([(0.1, 0.8), (0.12, 1.08)], mix(c, _INK, 0.3), 0.08)
    f.ellipse(0, 0, 0.88, 0.70, c)
    f.ellipse(0, 0, 0.50, 0.70, mix(c, _WHITE, 0.22))
    f.ellipse(0, 0, 0.18, 0.70, mix(c, _WHITE, 0.45))
    f.box(-0.36, -0.82, 0.36, -0.62, _WOOD)
    f.box(-0.36, 0.60, 0.36, 0.80, _WOOD)


def _teapot(f: Frame, c: Rgb) -> None:
    f.stroke(_arc(0.66, 0.15, 0.42, 0.46, -110, 110), _INK, 0.30)
    f.stroke(_arc(0.66, 0.15, 0.42, 0.46, -110, 110), mix(c, _INK, 0.25), 0.18)
    f.polygon(
        [(-0.45, 0.55), (-0.80, 0.30), (-0.92, -0.28), (-1.16, -0.36), (-0.72, -0.50), (-0.62, -0.05), (-0.35, 0.05)], c
    )
    f.ellipse(0.05, 0.25, 0.70, 0.58, c)
    f.polygon([*_arc(0.05, -0.24, 0.42, 0.26, 180, 360)], mix(c, _INK, 0.25))
    f.ellipse(0.05, -0.58, 0.14, 0.13, mix(c, _INK, 0.25))
    f.box(-0.32, 0.74, 0.42, 0.90, mix(c, _INK, 0.4))
    f.ellipse(-0.18, 0.10, 0.14, 0.18, mix(c, _WHITE, 0.55), outlined=False)


def _noodles(f: Frame, c: Rgb) -> None:
    f.stroke([(0.10, -0.05), (0.72, -1.02)], _INK, 0.18)
    f.stroke([(0.10, -0.05), (0.72, -1.02)], _WOOD, 0.10)
    f.stroke([(0.38, -0.05), (1.02, -0.88)], _INK, 0.18)
    f.stroke([(0.38, -0.05), (1.02, -0.88)], _WOOD, 0.10)
    f.polygon([*_arc(0, 0.05, 0.84, 0.50, 180, 360)], (0.98, 0.86, 0.50))
    for row, y in enumerate((-0.28, -0.14, 0.0)):
        x = np.linspace(-0.62 - 0.05 * row, 0.62 + 0.05 * row, 13)
        f.pen([(float(a), y + 0.06 * (-1) ** k) for k, a in enumerate(x)], 0.6)
    f.polygon([*_arc(0, 0.05, 1.0, 0.82, 0, 180, 20)], c)
    f.polygon([(-1.05, -0.04), (1.05, -0.04), (1.0, 0.16), (-1.0, 0.16)], mix(c, _WHITE, 0.45))
    f.box(-0.40, 0.80, 0.40, 0.98, mix(c, _INK, 0.4))


def _mountain(f: Frame, c: Rgb) -> None:
    f.polygon([(-0.1, 0.95), (0.55, -0.45), (1.2, 0.95)], mix(c, _INK, 0.35))
    f.polygon([(0.36, -0.05), (0.55, -0.45), (0.73, -0.06), (0.60, 0.05), (0.50, -0.05)], _WHITE)
    f.polygon([(-1.2, 0.95), (-0.28, -0.95), (0.68, 0.95)], c)
    f.polygon([(-0.28, -0.95), (0.08, -0.24), (-0.10, -0.34), (-0.26, -0.12), (-0.44, -0.32), (-0.62, -0.24)], _WHITE)


def _tree(f: Frame, c: Rgb) -> None:
    f.polygon([(-0.16, 0.1), (0.16, 0.1), (0.18, 0.75), (0.34, 1.0), (-0.34, 1.0), (-0.18, 0.75)], _WOOD)
    for x, y, r in ((-0.50, -0.02, 0.42), (0.50, -0.02, 0.42), (0.0, -0.50, 0.50)):
        f.ellipse(x, y, r, r, c)
    f.ellipse(0.0, -0.02, 0.44, 0.38, c, outlined=False)
    for x, y in ((-0.45, -0.05), (0.42, 0.02), (0.02, -0.52), (0.0, 0.0)):
        f.pen(_arc(x, y, 0.18, 0.16, 200, 340, 6), 0.7)


def _tower(f: Frame, c: Rgb) -> None:
    f.pen([(0, -1.15), (0, -0.6)], 1.0)
    f.polygon([(0.02, -1.15), (0.50, -1.02), (0.02, -0.88)], (0.86, 0.10, 0.12))
    f.box(-0.36, -0.40, 0.36, 1.0, c)
    f.polygon(
        [
            (-0.56, -0.30), (-0.56, -0.74), (-0.34, -0.74), (-0.34, -0.58), (-0.12, -0.58), (-0.12, -0.74),
            (0.12, -0.74), (0.12, -0.58), (0.34, -0.58), (0.34, -0.74), (0.56, -0.74), (0.56, -0.30),
        ],
        c,
    )  # fmt: skip
    f.box(-0.10, -0.16, 0.10, 0.14, _INK)
    f.polygon([(-0.18, 1.0), (-0.18, 0.62), *_arc(0, 0.62, 0.18, 0.18, 180, 360, 8), (0.18, 1.0)], _WOOD)
    for y in (0.26, 0.46):
        f.pen([(-0.36, y), (0.36, y)], 0.5)


def _fish(f: Frame, c: Rgb) -> None:
    f.polygon([(0.42, 0.0), (1.12, -0.62), (0.94, 0.0), (1.12, 0.62)], mix(c, _INK, 0.25))
    f.polygon([(-0.25, -0.40), (0.12, -0.88), (0.40, -0.30)], mix(c, _INK, 0.25))
    f.polygon([(-0.1, 0.42), (0.18, 0.80), (0.34, 0.32)], mix(c, _INK, 0.25))
    f.ellipse(-0.20, 0.0, 0.82, 0.52, c)
    f.pen(_arc(-0.62, 0.0, 0.22, 0.42, -70, 70), 0.9)
    for x in (-0.12, 0.16):
        f.pen(_arc(x, 0.0, 0.14, 0.26, -80, 80, 8), 0.6)
    f.ellipse(-0.72, -0.12, 0.14, 0.14, _WHITE)
    f.ellipse(-0.74, -0.12, 0.06, 0.06, _INK, outlined=False)


def _umbrella(f: Frame, c: Rgb) -> None:
    handle = [(0.0, -0.9), (0.0, 0.72), *_arc(0.18, 0.74, 0.18, 0.22, 180, 0, 9)]
    f.stroke(handle, _INK, 0.20)
    f.stroke(handle, _WOOD, 0.11)
    light = mix(c, _WHITE, 0.5)
    canopy = _arc(0, 0.05, 1.08, 0.95, 180, 360, 22)
    f.polygon([*canopy, (0.72, -0.12), (0.36, 0.08), (0.0, -0.12), (-0.36, 0.08), (-0.72, -0.12)], c)
    f.polygon([(-0.36, 0.06), *_arc(0, 0.05, 0.36, 0.92, 180, 360, 12), (0.36, 0.06), (0.0, -0.12)], light)
    f.pen([(0, -1.06), (0, -0.86)], 1.4)


_DRAW: Final[dict[str, Callable[[Frame, Rgb], None]]] = {
    "house": _house, "pagoda": _pagoda, "bridge": _bridge, "boat": _boat, "lantern": _lantern, "teapot": _teapot,
    "bowl of noodles": _noodles, "mountain": _mountain, "tree": _tree, "tower": _tower, "fish": _fish,
    "umbrella": _umbrella,
}  # fmt: skip


def draw_subject(frame: Frame, subject: str, colour: Rgb) -> None:
    """Draw `subject` in `colour` within `frame`."""
    _DRAW[subject](frame, colour)
