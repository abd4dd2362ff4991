"""The machine and the code that a figure was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Machine:
    """What a reader must know to repeat a run; nothing that names the machine itself."""

    cpu: str
    cores: int
    """CPUs that this process may use."""
    memory_gib: float
    python: str
    torch: str
    commit: str
    """Commit of the checkout, followed by `+changes` where it differs from the commit."""
    measured_at: str
    """RFC 3339, UTC."""
    load: float
    """Load average of the minute before: well above 0 means that something else ran too."""


def describe(checkout: Path) -> Machine:
    """This machine, now."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        python=platform.python_version(),
        torch=version("torch"),
        commit=_commit(checkout),
        measured_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        load=round(os.getloadavg()[0], 1),
    )


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit(checkout: Path) -> str:
    try:
        commit = _git(checkout, "rev-parse", "--short=12", "HEAD")
        # Results and their page change with every run and say nothing about the code.
        changes = _git(checkout, "status", "--porcelain", "--", ".", ":!benchmarks/results", ":!docs/benchmarks.md")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}+changes" if changes else commit


def _git(checkout: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=checkout, check=True, capture_output=True, text=True).stdout.strip()
