"""Draw a scene of the world: background for the place and the time of day, then the subject large in the middle."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from terroir.tiny.world.canvas import Canvas, mix
from terroir.tiny.world.look import BASE, Look, Rgb
from terroir.tiny.world.scene import Scene
from terroir.tiny.world.subjects import PAINT, Frame, draw_subject

_SKY: Final[dict[str, tuple[Rgb, Rgb]]] = {
    "day": ((0.60, 0.82, 0.96), (0.86, 0.94, 0.98)),
    "sunset": ((0.80, 0.52, 0.62), (0.99, 0.80, 0.58)),
    "night": ((0.07, 0.08, 0.24), (0.18, 0.20, 0.42)),
}
_GROUND: Final[dict[str, Rgb]] = {
    "river": (0.50, 0.74, 0.80),
    "snow": (0.86, 0.91, 0.97),
    "desert": (0.90, 0.80, 0.58),
    "hills": (0.66, 0.78, 0.52),
    "city": (0.66, 0.65, 0.68),
}
_TINT: Final[dict[str, tuple[Rgb, float]]] = {
    "day": ((1.0, 1.0, 1.0), 0.0),
    "sunset": ((0.86, 0.55, 0.42), 0.22),
    "night": ((0.06, 0.07, 0.22), 0.52),
}
_SUN: Final = (1.0, 0.90, 0.40)
_LOW_SUN: Final = (1.0, 0.55, 0.25)
_MOON: Final = (0.97, 0.96, 0.84)
_STAR: Final = (1.0, 1.0, 0.90)


def render(
    scene: Scene, rng: np.random.Generator, look: Look = BASE, *, width: int = 64, height: int = 64
) -> Image.Image:
    """Draw `scene` as an RGB picture of `width` × `height` pixels; placement varies with `rng`."""
    canvas = Canvas(width, height, look, rng)
    _sky(canvas, scene.time, rng)
    _place(canvas, scene, rng)
    side = min(width, height)
    half = side * float(rng.uniform(0.33, 0.40))
    centre = (
        width * 0.5 + side * float(rng.uniform(-0.09, 0.09)),
        height * 0.5 + side * float(rng.uniform(0.00, 0.09)),
    )
    frame = Frame(canvas, centre, half)
    draw_subject(frame, scene.subject, PAINT[scene.colour])
    if scene.scene == "snow":
        _dots(canvas, rng, count=14 * width // height, below=1.0, radius=0.9, colour=(1.0, 1.0, 1.0))
    return canvas.finish()


def _tinted(colour: Rgb, time: str) -> Rgb:
    tint, share = _TINT[time]
    return mix(colour, tint, share)


def _dots(canvas: Canvas, rng: np.random.Generator, *, count: int, below: float, radius: float, colour: Rgb) -> None:
    for _ in range(count):
        where = (float(rng.uniform(0, canvas.width)), float(rng.uniform(0, canvas.height * below)))
        canvas.ellipse(where, (radius, radius), colour, outlined=False)


def _sky(canvas: Canvas, time: str, rng: np.random.Generator) -> None:
    w, h = canvas.width, canvas.height
    side = min(w, h)
    top, bottom = _SKY[time]
    canvas.gradient(top, bottom, h)
    left = rng.random() < 0.5
    x = w * (0.14 if left else 0.86)
    if time == "night":
        _dots(canvas, rng, count=9 * w // h, below=0.5, radius=0.6, colour=_STAR)
        canvas.ellipse((x, h * 0.14), (side * 0.085, side * 0.085), _MOON)
        dx = side * (0.045 if left else -0.045)
        canvas.ellipse((x + dx, h * 0.12), (side * 0.07, side * 0.07), top, outlined=False)
    elif time == "sunset":
        canvas.ellipse((x, h * 0.46), (side * 0.14, side * 0.14), _LOW_SUN)
    else:
        canvas.ellipse((x, h * 0.14), (side * 0.10, side * 0.10), _SUN)
        cloud = w - x
        for dx, r in ((-0.07, 0.045), (0.0, 0.065), (0.07, 0.045)):
            canvas.ellipse((cloud + dx * side, h * 0.16), (r * side * 1.3, r * side), (1.0, 1.0, 1.0), outlined=False)


def _place(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    w, h = canvas.width, canvas.height
    ground = _tinted(_GROUND[scene.scene], scene.time)
    dark = mix(ground, (0.1, 0.1, 0.2), 0.22)
    light = mix(ground, (1.0, 1.0, 1.0), 0.4)
    horizon = h * float(rng.uniform(0.56, 0.64))
    phase = float(rng.uniform(0, 2 * np.pi))
    xs = np.linspace(-2, w + 2, 16)

    def ridge(level: float, height: float, waves: float, shift: float) -> list[tuple[float, float]]:
        return [(float(x), level - height * (0.5 + 0.5 * float(np.sin(x / w * waves * 2 * np.pi + shift)))) for x in xs]

    if scene.scene == "city":
        _skyline(canvas, scene.time, horizon, rng)
        canvas.polygon([(-2, horizon), (w + 2, horizon), (w + 2, h + 2), (-2, h + 2)], ground)
        canvas.stroke([(0, h * 0.93), (w, h * 0.93)], light, h * 0.02)
        return
    if scene.scene == "river":
        bank = _tinted(_GROUND["hills"], scene.time)
        canvas.polygon([*ridge(horizon, h * 0.05, 1.0, phase), (w + 2, h), (-2, h)], bank)
        shore = horizon + h * 0.06
        canvas.polygon([(-2, shore), (w + 2, shore), (w + 2, h + 2), (-2, h + 2)], ground)
        for row in range(4):
            y = shore + (h - shore) * (row + 0.7) / 4.2
            wave = [(float(x), y + h * 0.012 * float(np.sin(x / w * 40 + phase + row))) for x in np.linspace(0, w, 32)]
            canvas.stroke(wave, light if row % 2 else dark, h * 0.016)
        return
    if scene.scene == "hills":
        canvas.polygon([*ridge(horizon, h * 0.22, 1.0, phase), (w + 2, h), (-2, h)], dark)
        canvas.polygon([*ridge(horizon + h * 0.14, h * 0.16, 0.8, phase + 2.2), (w + 2, h + 2), (-2, h + 2)], ground)
        return
    if scene.scene == "desert":
        canvas.polygon([*ridge(horizon, h * 0.10, 0.9, phase), (w + 2, h), (-2, h)], ground)
        canvas.polygon([*ridge(horizon + h * 0.20, h * 0.12, 0.7, phase + 1.5), (w + 2, h + 2), (-2, h + 2)], dark)
        _cactus(canvas, scene.time, w * (0.10 if rng.random() < 0.5 else 0.90), horizon + h * 0.16)
        return
    canvas.polygon([*ridge(horizon, h * 0.07, 0.7, phase), (w + 2, h + 2), (-2, h + 2)], ground)
    pine = _tinted((0.30, 0.45, 0.42), scene.time)
    for x in (w * 0.07, w * 0.93):
        y = horizon + h * 0.10
        for tier in range(2):
            spread, top = h * (0.075 - 0.015 * tier), y - h * (0.15 + 0.09 * tier)
            canvas.polygon([(x - spread, y - h * 0.09 * tier), (x, top), (x + spread, y - h * 0.09 * tier)], pine)


def _cactus(canvas: Canvas, time: str, x: float, base: float) -> None:
    h = canvas.height
    colour = _tinted((0.42, 0.56, 0.36), time)
    canvas.stroke([(x, base), (x, base - h * 0.26)], colour, h * 0.05)
    canvas.stroke(
        [(x - h * 0.065, base - h * 0.20), (x - h * 0.065, base - h * 0.12), (x, base - h * 0.12)], colour, h * 0.03
    )
    canvas.stroke(
        [(x + h * 0.065, base - h * 0.17), (x + h * 0.065, base - h * 0.09), (x, base - h * 0.09)], colour, h * 0.03
    )


def _skyline(canvas: Canvas, time: str, horizon: float, rng: np.random.Generator) -> None:
    w, h = canvas.width, canvas.height
    wall = _tinted((0.62, 0.66, 0.74), time)
    window = (1.0, 0.92, 0.55) if time == "night" else mix(wall, (1.0, 1.0, 1.0), 0.5)
    step = h * 0.17
    x = -float(rng.uniform(0, step))
    while x < w:
        top = horizon - h * float(rng.uniform(0.16, 0.44))
        canvas.polygon([(x, horizon), (x, top), (x + step, top), (x + step, horizon)], wall)
        for row in np.arange(top + h * 0.05, horizon - h * 0.03, h * 0.085):
            for column in (0.3, 0.7):
                cx, cy = x + step * column, float(row)
                d = h * 0.016
                canvas.polygon(
                    [(cx - d, cy - d), (cx + d, cy - d), (cx + d, cy + d), (cx - d, cy + d)], window, outlined=False
                )
        x += step
