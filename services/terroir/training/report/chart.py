"""A line chart as SVG, drawn without any library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

_WIDTH, _HEIGHT = 460, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 30
_MOST_POINTS: Final = 600
_SMOOTH: Final = 25
"""Steps that the heavy line averages over, at most a tenth of all."""


def line_chart(points: Mapping[int, float], title: str, *, smooth: bool = False, marked: int = 0) -> str:
    """Values by step; with `smooth` the values thin and their running mean heavy; `marked` is a step to point at."""
    finite = {step: value for step, value in points.items() if math.isfinite(value)}
    if not finite:
        return ""
    steps, values = list(finite), list(finite.values())
    low, high = _range(values)
    first, last = steps[0], max(steps[-1], steps[0] + 1)

    def x(step: float) -> float:
        return _LEFT + (step - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def path(of: Sequence[float], kind: str) -> str:
        every = max(1, len(of) // _MOST_POINTS)
        ends = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in list(zip(steps, of, strict=True))[::every])
        return f'<polyline class="{kind}" points="{ends}"/>'

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{_short(v)}</text>'
        for v in _ticks(low, high)
    ]
    parts += [
        f'<text x="{x(s):.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{s}</text>'
        for s in sorted({first, (first + last) // 2, steps[-1]})
    ]
    if marked:
        parts.append(f'<line class="mark" x1="{x(marked):.1f}" x2="{x(marked):.1f}" y1="{_TOP}" y2="{y(low):.1f}"/>')
    if smooth and len(values) > 10:
        parts += [path(values, "raw"), path(_running_mean(values), "line")]
    elif len(values) == 1:
        parts.append(f'<circle class="dot" cx="{x(steps[0]):.1f}" cy="{y(values[0]):.1f}" r="3"/>')
    else:
        parts.append(path(values, "line"))
    told = escape(title)
    return (
        f'<figure class="chart"><figcaption>{told}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{told} by step, from {_short(values[0])} to {_short(values[-1])}">{"".join(parts)}</svg></figure>'
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low < high * 0.3 else low - pad), high + pad


def _ticks(low: float, high: float) -> list[float]:
    """About four round values."""
    raw = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    start = math.ceil(low / step - 1e-9)
    return [step * (start + number) for number in range(int((high - start * step) / step + 1e-9) + 1)]


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.0e}".replace("e-0", "e-")


def _running_mean(values: Sequence[float]) -> list[float]:
    window = max(2, min(_SMOOTH, len(values) // 10))
    return [sum(part) / len(part) for at in range(len(values)) if (part := values[max(0, at + 1 - window) : at + 1])]
