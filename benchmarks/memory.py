"""Memory of a command and of everything that it starts, processes that detach from it included."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

MARK: Final = "TERROIR_BENCH_TREE"
_INTERVAL_SECONDS: Final = 0.5


def pss_bytes(pid: int) -> int:
    """Proportional set size: private pages, and shared ones divided by those who share them; 0 once it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


@dataclass
class ProcessTree:
    """Finds the processes that descend from a command by an environment variable that they all inherit.

    Some overwrite their environment to change their title (Ray's workers): those are known by their parent. So a
    process is judged when it is first seen, and stays what it was judged.
    """

    value: str = field(default_factory=lambda: uuid.uuid4().hex)
    _judged: dict[psutil.Process, bool] = field(default_factory=dict)

    @property
    def environment(self) -> Mapping[str, str]:
        """What the command must be started with."""
        return {MARK: self.value}

    def members(self) -> list[psutil.Process]:
        """Its processes that run now."""
        alive = sorted(psutil.process_iter(), key=lambda process: process.pid)
        for process in alive:
            if process not in self._judged:
                self._judged[process] = self._belongs(process)
        return [process for process in alive if self._judged[process]]

    def _belongs(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            parent = process.parent()
            if parent is not None and self._judged.get(parent, False):
                return True
            return process.environ().get(MARK) == self.value
        return False


class PeakMemory:
    """Samples a tree's summed PSS on a thread while the context is open."""

    def __init__(self, tree: ProcessTree, interval_seconds: float = _INTERVAL_SECONDS) -> None:
        self._tree = tree
        self._interval = interval_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_bytes = 0
        self.peak_processes = 0
        """Processes at the peak."""
        self.peak_after_seconds = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(self._interval):
            members = self._tree.members()
            total = sum(pss_bytes(process.pid) for process in members)
            if total > self.peak_bytes:
                self.peak_bytes, self.peak_processes = total, len(members)
                self.peak_after_seconds = time.monotonic() - began
