"""A measured figure, what it is compared with, and whether it reaches its target."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.machine import Machine


@dataclass(frozen=True)
class Target:
    """Bounds, both inclusive, of the figure itself or of its ratio to the peer."""

    at_most: float | None = None
    at_least: float | None = None
    judged: Literal["ours", "ratio"] = "ours"
    cores: int = 1
    """CPU cores for which the target was set; on fewer it is not judged."""

    def __str__(self) -> str:
        bounds = []
        if self.at_least is not None:
            bounds.append(f"≥ {self.at_least:g}")
        if self.at_most is not None:
            bounds.append(f"≤ {self.at_most:g}")
        return ("ratio " if self.judged == "ratio" else "") + " and ".join(bounds)

    def met_by(self, value: float) -> bool:
        """Whether a value lies within the bounds."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True)
class Row:
    """One figure as it is published; `met` is None where nothing was judged, and `reason` says why."""

    figure: str
    unit: str
    ours: float | None
    peer: float | None
    peer_name: str | None
    ratio: float | None
    """ours / peer."""
    target: str | None
    met: bool | None
    reason: str | None
    command: str


def judge(
    figure: str,
    unit: str,
    ours: float | None,
    *,
    command: str,
    machine: Machine,
    peer: float | None = None,
    peer_name: str | None = None,
    target: Target | None = None,
    reason: str | None = None,
) -> Row:
    """A row with its ratio and verdict; `ours` of None needs the `reason` why it was not measured.

    The verdict is on the unrounded value.
    """
    ratio = ours / peer if ours is not None and peer else None
    met = None
    if ours is None:
        if not reason:
            raise ValueError(f"{figure} was not measured and no reason is given")
    elif target is None:
        reason = reason or "no target is set"
    elif machine.cores < target.cores:
        reason = f"the target is for {target.cores} CPU cores, this machine has {machine.cores}"
    else:
        judged = ratio if target.judged == "ratio" else ours
        if judged is None:
            raise ValueError(f"{figure} is judged by its ratio and has no peer")
        met = target.met_by(judged)
    return Row(
        figure=figure, unit=unit, ours=_rounded(ours), peer=_rounded(peer), peer_name=peer_name, ratio=_rounded(ratio),
        target=None if target is None else str(target), met=met, reason=reason, command=command,
    )  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


@dataclass(frozen=True)
class AreaResult:
    """What one run of an area found, and where."""

    area: str
    machine: Machine
    seconds: float
    """How long the area took."""
    rows: tuple[Row, ...]

    def save(self, folder: Path) -> Path:
        """Write `<area>.json`, atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.area}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(path)
        return path

    @classmethod
    def load(cls, path: Path) -> AreaResult:
        """Read what `save` wrote."""
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            area=fields["area"],
            machine=Machine(**fields["machine"]),
            seconds=fields["seconds"],
            rows=tuple(Row(**row) for row in fields["rows"]),
        )


def load_all(folder: Path, areas: Iterable[str]) -> list[AreaResult]:
    """Results that exist, in the order of `areas`."""
    return [AreaResult.load(path) for area in areas if (path := folder / f"{area}.json").exists()]
