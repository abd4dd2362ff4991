"""The figures of the week as they stand in docs/scheduling.md, between two marks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from benchmarks.rows import Row

BEGIN: Final = "<!-- written by `make bench AREA=scheduling` -->"
END: Final = "<!-- end -->"
_WAIT: Final = re.compile(r".*: wait of (\d+) (\w+) jobs of (\w+), (median|p95)")
_SHORT: Final = re.compile(r"^simulated, (\d+ styles[^:]*: )?")


def write(page: Path, rows: Iterable[Row]) -> None:
    """Replace what stands between the marks."""
    text = page.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{render(rows)}{END}{after}", encoding="utf-8")


def render(rows: Iterable[Row]) -> str:
    """Two tables: waiting by class and team, then everything else of the week."""
    waits: dict[tuple[str, str, str], dict[str, Row]] = {}
    others = []
    for row in rows:
        if found := _WAIT.match(row.figure):
            count, priority, team, which = found.groups()
            waits.setdefault((priority, team, count), {})[which] = row
        elif row.figure.startswith("simulated"):
            others.append(row)
    lines = [
        "| class | team | jobs | median wait | p95 | first come, first served: median | p95 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (priority, team, count), found_rows in waits.items():
        cells = [_minutes(found_rows[which].ours) for which in ("median", "p95")]
        cells += [_minutes(found_rows[which].peer) for which in ("median", "p95")]
        lines.append(f"| {priority} | {team} | {count} | {' | '.join(cells)} |")
    lines += ["", "| the week | terroir | first come, first served |", "| --- | --- | --- |"]
    lines += [f"| {_SHORT.sub('', row.figure)} | {_value(row, row.ours)} | {_value(row, row.peer)} |" for row in others]
    return "\n".join(lines) + "\n"


def _value(row: Row, value: float | None) -> str:
    if value is None:
        return ""
    if row.unit == "min":
        return _minutes(value)
    return f"{value:.0%}" if row.unit == "share" else f"{value:.3g} {row.unit}".strip()


def _minutes(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value / 60:.1f} h" if value >= 120 else f"{value * 60:.0f} s" if value < 2 else f"{value:.0f} min"
