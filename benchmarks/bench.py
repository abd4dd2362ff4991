"""What an area gets: how much to measure, where to write, and how to say what it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import Machine
from benchmarks.rows import Row, Target, judge


@dataclass(frozen=True)
class Bench:
    """One run of one area."""

    area: str
    work: Path
    """Empty folder that is removed afterwards."""
    machine: Machine
    command: str
    quick: bool = False
    """Smallest counts, to prove that an area works."""
    demo_out: Path | None = None
    """Folder of a finished demo to read instead of running one."""
    say: Callable[[str], None] = print

    def count(self, full: int, quick: int) -> int:
        """How often to repeat something."""
        return quick if self.quick else full

    def row(
        self,
        figure: str,
        unit: str,
        ours: float | None,
        *,
        peer: float | None = None,
        peer_name: str | None = None,
        target: Target | None = None,
        reason: str | None = None,
    ) -> Row:
        """A figure of this run; see `judge`."""
        return judge(
            figure, unit, ours, command=self.command, machine=self.machine, peer=peer, peer_name=peer_name,
            target=target, reason=reason,
        )  # fmt: skip
