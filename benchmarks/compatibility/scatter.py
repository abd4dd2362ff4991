"""A scatter plot as a PNG, drawn with what the project has anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

_SIZE: Final = (1040, 700)
_LEFT, _TOP, _RIGHT, _BOTTOM = 90, 60, 1010, 620
_INK: Final = (30, 34, 40)
_FAINT: Final = (222, 224, 228)


@dataclass(frozen=True)
class Point:
    """One mark; `group` picks colour and legend."""

    x: float
    y: float
    group: str


@dataclass(frozen=True)
class Plot:
    """What stands around the points."""

    title: str
    x_title: str
    y_title: str
    x_lines: tuple[tuple[float, str], ...]
    """Vertical lines with what stands beside them."""
    colours: dict[str, tuple[int, int, int]]
    y_floor: float


def draw(path: Path, plot: Plot, points: Sequence[Point]) -> None:
    """Write the plot; x from 0 to 1, y as far as the points reach, what lies below `y_floor` at its edge."""
    low = max(plot.y_floor, min(0.0, *(p.y for p in points))) - 0.05
    high = max(1.0, *(p.y for p in points)) + 0.05
    image = Image.new("RGB", _SIZE, "white")
    pen = ImageDraw.Draw(image)
    font, large = ImageFont.load_default(16), ImageFont.load_default(19)

    def across(value: float) -> float:
        return _LEFT + value * (_RIGHT - _LEFT)

    def down(value: float) -> float:
        return _BOTTOM - (value - low) / (high - low) * (_BOTTOM - _TOP)

    for tenth in range(0, 11, 2):
        pen.line((across(tenth / 10), _TOP, across(tenth / 10), _BOTTOM), fill=_FAINT)
        pen.text((across(tenth / 10), _BOTTOM + 8), f"{tenth / 10:g}", fill=_INK, font=font, anchor="ma")
    for fifth in range(int(low * 5), int(high * 5) + 1):
        pen.line((_LEFT, down(fifth / 5), _RIGHT, down(fifth / 5)), fill=_FAINT)
        pen.text((_LEFT - 8, down(fifth / 5)), f"{fifth / 5:g}", fill=_INK, font=font, anchor="rm")
    for value, label in plot.x_lines:
        pen.line((across(value), _TOP, across(value), _BOTTOM), fill=(150, 150, 150), width=2)
        pen.text((across(value) + 5, _BOTTOM - 24), label, fill=(110, 110, 110), font=font)
    for point in points:
        x, y = across(point.x), down(max(point.y, plot.y_floor))
        pen.ellipse((x - 6, y - 6, x + 6, y + 6), fill=plot.colours[point.group], outline="white")
    pen.text((_LEFT, 18), plot.title, fill=_INK, font=large)
    pen.text(((_LEFT + _RIGHT) / 2, _BOTTOM + 36), plot.x_title, fill=_INK, font=font, anchor="ma")
    _write_upright(image, plot.y_title, font)
    for number, (group, colour) in enumerate(plot.colours.items()):
        x, y = _LEFT + 220 * number, _SIZE[1] - 14
        pen.ellipse((x, y - 6, x + 12, y + 6), fill=colour)
        pen.text((x + 18, y), group, fill=_INK, font=font, anchor="lm")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


def _write_upright(image: Image.Image, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    width = int(font.getlength(text)) + 4
    label = Image.new("RGB", (width, 26), "white")
    ImageDraw.Draw(label).text((2, 2), text, fill=_INK, font=font)
    image.paste(label.rotate(90, expand=True), (14, int((_TOP + _BOTTOM - width) / 2)))
