"""Drawing surface: shapes are drawn large, then reduced and given their look.

Colours and outlines are kept on two layers, so that a look can blur the paint and leave the line crisp, or make the
line alone glow.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from terroir.tiny.world.look import Look, Rgb

Point = tuple[float, float]
OVERSAMPLING: Final = 4


def mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """`a` with `share` (0 … 1) of `b`."""
    return (
        a[0] + (b[0] - a[0]) * share,
        a[1] + (b[1] - a[1]) * share,
        a[2] + (b[2] - a[2]) * share,
    )


def _bytes(colour: Rgb) -> tuple[int, int, int]:
    red, green, blue = (max(0, min(255, round(c * 255))) for c in colour)
    return red, green, blue


class Canvas:
    """A picture in the making; coordinates are pixels of the finished picture, origin at the top left."""

    def __init__(self, width: int, height: int, look: Look, rng: np.random.Generator) -> None:
        self.width, self.height, self.look, self._rng = width, height, look, rng
        size = (width * OVERSAMPLING, height * OVERSAMPLING)
        self._paint = Image.new("RGB", size)
        self._lines = Image.new("L", size)
        self._brush = ImageDraw.Draw(self._paint)
        self._pen = ImageDraw.Draw(self._lines)

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        tremor = self.look.wobble
        if not tremor:
            return [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]
        shift = self._rng.normal(0.0, tremor, (len(points), 2))
        return [
            ((x + dx) * OVERSAMPLING, (y + dy) * OVERSAMPLING) for (x, y), (dx, dy) in zip(points, shift, strict=True)
        ]

    def _stroke_width(self, factor: float) -> int:
        return max(1, round(self.look.outline_width * OVERSAMPLING * factor))

    def polygon(self, points: Sequence[Point], fill: Rgb, *, outlined: bool = True) -> None:
        """Fill a closed shape; hide the lines that it covers, then draw its own."""
        corners = self._scaled(points)
        self._brush.polygon(corners, fill=_bytes(fill))
        if outlined:
            self._pen.polygon(corners, fill=0)
            self._pen.line([*corners, corners[0]], fill=255, width=self._stroke_width(1.0), joint="curve")

    def ellipse(self, centre: Point, radii: Point, fill: Rgb, *, outlined: bool = True) -> None:
        """Fill an upright ellipse."""
        angles = np.linspace(0.0, 2.0 * np.pi, 28, endpoint=False)
        points = [(centre[0] + radii[0] * float(np.cos(a)), centre[1] + radii[1] * float(np.sin(a))) for a in angles]
        self.polygon(points, fill, outlined=outlined)

    def stroke(self, points: Sequence[Point], colour: Rgb, width: float) -> None:
        """A coloured open line of `width` pixels, without an outline of its own."""
        self._brush.line(
            self._scaled(points), fill=_bytes(colour), width=max(1, round(width * OVERSAMPLING)), joint="curve"
        )

    def pen(self, points: Sequence[Point], weight: float = 0.7) -> None:
        """A line in the outline's ink; `weight` is relative to the look's outline width."""
        self._pen.line(self._scaled(points), fill=255, width=self._stroke_width(weight), joint="curve")

    def gradient(self, top: Rgb, bottom: Rgb, until: float) -> None:
        """Paint a vertical gradient from the upper edge down to the row `until`."""
        rows = max(1, round(until * OVERSAMPLING))
        share = np.linspace(0.0, 1.0, rows)[:, None]
        ramp = (np.array(top) * (1 - share) + np.array(bottom) * share) * 255
        strip = Image.fromarray(np.clip(ramp, 0, 255).astype(np.uint8)[:, None, :].reshape(rows, 1, 3), "RGB")
        self._paint.paste(strip.resize((self._paint.width, rows), Image.Resampling.NEAREST), (0, 0))

    def finish(self) -> Image.Image:
        """Reduce to the finished size and apply the look."""
        paint = np.asarray(self._paint.reduce(OVERSAMPLING), dtype=np.float32) / 255.0
        lines = np.asarray(self._lines.reduce(OVERSAMPLING), dtype=np.float32) / 255.0
        return Image.fromarray((_apply(self.look, paint, lines, self._rng) * 255 + 0.5).astype(np.uint8), "RGB")


def _blurred(values: npt.NDArray[np.float32], radius: float) -> npt.NDArray[np.float32]:
    image = Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / np.float32(255)


def _smooth_noise(height: int, width: int, cell: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    coarse = rng.normal(0.0, 1.0, (height // cell + 2, width // cell + 2)).astype(np.float32)
    image = Image.fromarray(coarse, "F").resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _hue_matrix(turn: float, saturation: float) -> npt.NDArray[np.float32]:
    """Rotate chroma about the grey axis in YIQ and scale it."""
    to_yiq = np.array([colorsys.rgb_to_yiq(*unit) for unit in np.eye(3)]).T
    angle = 2.0 * np.pi * turn
    turned = saturation * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.eye(3)
    middle[1:, 1:] = turned
    return (np.linalg.inv(to_yiq) @ middle @ to_yiq).astype(np.float32)


def _apply(
    look: Look, paint: npt.NDArray[np.float32], lines: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Colours `[height, width, 3]` and line coverage `[height, width]`, both 0 … 1, to the finished picture."""
    height, width = lines.shape
    image = paint
    if look.fill < 1.0:
        image = image * look.fill + np.float32(1.0 - look.fill) * np.array(look.light, dtype=np.float32)
    if look.softness:
        image = _blurred(image, look.softness)
    if look.hue_turn or look.saturation != 1.0:
        image = np.clip(image @ _hue_matrix(look.hue_turn, look.saturation).T, 0, 1)
    if look.gamma != 1.0:
        image = image**look.gamma
    if look.duotone:
        tone = image @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        stops = np.array([look.dark, look.middle, look.light], dtype=np.float32)
        mapped = np.stack([np.interp(tone, (0.0, 0.5, 1.0), stops[:, c]) for c in range(3)], axis=-1)
        image = image * (1 - look.duotone) + mapped.astype(np.float32) * look.duotone
    if look.invert:
        image = 1.0 - image
    if look.wash:
        image = image * (1.0 + look.wash * _smooth_noise(height, width, 8, rng)[..., None])
    if look.hatch:
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        phase = (x * np.cos(look.hatch_angle) + y * np.sin(look.hatch_angle)) * 2 * np.pi / look.hatch_period
        image = image * (1.0 - look.hatch * (0.5 + 0.5 * np.sin(phase))[..., None]).astype(np.float32)
    if look.levels:
        image = (np.round(np.clip(image, 0, 1) * (look.levels - 1)) / (look.levels - 1)).astype(np.float32)
    cover = (lines * look.outline_opacity)[..., None]
    image = image * (1 - cover) + np.array(look.outline, dtype=np.float32) * cover
    if look.glow:
        halo = _blurred(lines, look.glow_radius)[..., None] * np.array(look.glow_colour, dtype=np.float32) * look.glow
        image = 1.0 - (1.0 - np.clip(image, 0, 1)) * (1.0 - np.clip(halo * 1.6, 0, 1))
    if look.vignette:
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        image = image * (1.0 - look.vignette * np.clip(x * x + y * y - 0.3, 0, 1))[..., None]
    if look.grain:
        image = image + rng.normal(0.0, look.grain, (height, width, 1)).astype(np.float32)
    return np.clip(image, 0.0, 1.0).astype(np.float32)
