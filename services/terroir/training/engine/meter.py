"""Speed and remaining time of a run, reported at most about twice a second."""

from __future__ import annotations

from collections import deque
from typing import Final

from terroir.common.clock import Clock
from terroir.training.engine.ports import Sinks, TrainProgress
from terroir.training.engine.state import Counters

_INTERVAL_SECONDS: Final = 0.5
_WINDOW: Final = 20


class Meter:
    """Turns finished steps into progress reports."""

    def __init__(self, sinks: Sinks, clock: Clock, total_steps: int = 0) -> None:
        self._sinks = sinks
        self._clock = clock
        self.total_steps = total_steps
        self._reported = float("-inf")
        self._marks: deque[tuple[float, int]] = deque(maxlen=_WINDOW)

    def phase(self, phase: str, counters: Counters | None = None, learning_rate: float = 0.0) -> None:
        """Report at once that the run entered a phase."""
        self._report(phase, counters or Counters(), learning_rate)

    def encoded(self, done: int, total: int) -> None:
        """Count an encoding, and report if the last report is old enough."""
        if self._clock.monotonic() - self._reported >= _INTERVAL_SECONDS:
            self._reported = self._clock.monotonic()
            report = TrainProgress("caching", total_steps=self.total_steps, encoded=done, to_encode=total)
            self._sinks.progress(report)

    def stepped(self, counters: Counters, learning_rate: float) -> None:
        """Count a step, and report if the last report is old enough or this was the last step."""
        now = self._clock.monotonic()
        self._marks.append((now, counters.step))
        if now - self._reported >= _INTERVAL_SECONDS or counters.step == self.total_steps:
            self._report("training", counters, learning_rate)

    def _report(self, phase: str, counters: Counters, learning_rate: float) -> None:
        self._reported = self._clock.monotonic()
        speed = self._speed()
        self._sinks.progress(
            TrainProgress(
                phase=phase,
                step=counters.step,
                total_steps=self.total_steps,
                loss=counters.mean_loss,
                learning_rate=learning_rate,
                steps_per_second=speed,
                eta_seconds=(self.total_steps - counters.step) / speed if speed else 0.0,
                skipped_batches=counters.skipped,
            )
        )

    def _speed(self) -> float:
        if len(self._marks) < 2:
            return 0.0
        (first, first_step), (last, last_step) = self._marks[0], self._marks[-1]
        return (last_step - first_step) / (last - first) if last > first else 0.0
