"""The week as a picture: GPUs that each team held, and jobs that waited, under each policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from benchmarks.scheduling.week import Record, Sample
from benchmarks.scheduling.workload import DAY, TEAMS

_WIDTH, _LEFT, _RIGHT = 1000, 62, 940
_PANEL, _GAP, _TOP = 190, 64, 54
_COLOURS: Final = {"studio": "#3b6fb6", "brands": "#e0a030", "research": "#5a9e6f"}
_INK, _FAINT, _WAIT = "#1e2228", "#d6d9de", "#b03a2e"
_STEPS: Final = 840
"""Points across."""
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def draw(path: Path, title: str, records: Mapping[str, Record]) -> None:
    """Write an SVG with one panel a record, named by its key."""
    parts = [_text(_LEFT, 24, title, size=17, weight="bold"), *_legend(40)]
    most = max(sum(sample.waiting.values()) for record in records.values() for sample in record.samples)
    for number, (name, record) in enumerate(records.items()):
        parts += _panel(_TOP + 16 + number * (_PANEL + _GAP), name, record, most)
    height = _TOP + len(records) * (_PANEL + _GAP) + 4
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">'
    body = "\n".join([head, f'<rect width="{_WIDTH}" height="{height}" fill="white"/>', *parts, "</svg>"])
    path.write_text(f"{body}\n", encoding="utf-8")


def _panel(top: float, name: str, record: Record, most_waiting: int) -> list[str]:
    bottom, seconds = top + _PANEL, record.world.seconds
    gpus = float(sum(node.gpus for node in record.world.nodes))
    samples = _resampled(record.samples, seconds)
    parts = [_text(_LEFT, top - 8, name, size=14, weight="bold")]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = bottom - share * _PANEL
        parts.append(f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y:g}" y2="{y:g}" stroke="{_FAINT}"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{share * gpus:g}", anchor="end"))
        parts.append(_text(_RIGHT + 8, y + 4, f"{share * most_waiting:.0f}", colour=_WAIT))
    for day in range(int(seconds // DAY)):
        x = _across(day * DAY, seconds)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="{_FAINT}"/>')
        parts.append(_text(x + 6, bottom + 18, _DAYS[day % 7]))
    below = [0.0] * len(samples)
    for team in TEAMS:
        above = [low + sample.held.get(team, 0.0) for low, (_, sample) in zip(below, samples, strict=True)]
        edges = [
            [
                (_across(at, seconds), bottom - value / gpus * _PANEL)
                for (at, _), value in zip(samples, edge, strict=True)
            ]
            for edge in (above, below)
        ]
        outline = _points([*edges[0], *reversed(edges[1])])
        parts.append(f'<polygon points="{outline}" fill="{_COLOURS[team]}"/>')
        below = above
    line = [
        (_across(at, seconds), bottom - sum(sample.waiting.values()) / max(1, most_waiting) * _PANEL)
        for at, sample in samples
    ]
    parts.append(f'<polyline points="{_points(line)}" fill="none" stroke="{_WAIT}" stroke-width="1.6"/>')
    return parts


def _legend(y: float) -> list[str]:
    parts, x = [], float(_LEFT)
    for team, colour in _COLOURS.items():
        parts.append(f'<rect x="{x:g}" y="{y - 10:g}" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(x + 17, y, f"GPUs of {team}"))
        x += 150
    parts.append(f'<line x1="{x:g}" x2="{x + 18:g}" y1="{y - 4:g}" y2="{y - 4:g}" stroke="{_WAIT}" stroke-width="2"/>')
    parts.append(_text(x + 24, y, "jobs that wait (right scale)"))
    return parts


def _resampled(samples: Sequence[Sample], seconds: float) -> list[tuple[float, Sample]]:
    """How things stood at evenly spaced moments."""
    found, index = [], 0
    for step in range(_STEPS + 1):
        at = step * seconds / _STEPS
        while index + 1 < len(samples) and samples[index + 1].at <= at:
            index += 1
        if samples[index].at <= at:
            found.append((at, samples[index]))
    return found


def _across(at: float, seconds: float) -> float:
    return _LEFT + at / seconds * (_RIGHT - _LEFT)


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _text(
    x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", weight: str = "normal", colour: str = _INK
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{colour}">{escape(text)}</text>'
    )
