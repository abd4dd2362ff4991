"""What the engine does with its inputs: bursts begin together, and freed memory is used again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

from terroir.inference.engine import engine as engine_module
from terroir.inference.engine.engine import Engine
from terroir.inference.engine.messages import DrawingEvent, EngineConfig, Finished, Stepped, Stop
from terroir.inference.engine.wearing.stacks import Stacks
from tests.unit.inference.drawing_kit import make_job

NOTHING_FOR_A_WHILE = object()


class Played:
    """A queue that hands out what it is told to, when it is waited for."""

    script: list[Any] = []  # noqa: RUF012  # set by each test

    def get(self, timeout: float | None = None) -> Any:
        found = self.script.pop(0)
        if found is NOTHING_FOR_A_WHILE:
            assert timeout is not None
            raise Empty
        return found

    def put(self, item: Any) -> None:
        pass

    def empty(self) -> bool:
        return True


def events_of(base_dir: Path, monkeypatch: pytest.MonkeyPatch, *script: Any) -> list[DrawingEvent]:
    config = EngineConfig(
        str(base_dir), threads=1, device="cpu", dtype="float32", plan="auto", compiled=False,
        preview_decoder="vae", merged_budget_bytes=0, max_batch_rows=16, spare_tick_seconds=0.05,
    )  # fmt: skip
    monkeypatch.setattr(engine_module, "SimpleQueue", Played)
    monkeypatch.setattr(Played, "script", [*script])
    events: list[DrawingEvent] = []
    engine = Engine(config, events.append)
    monkeypatch.setattr(engine._vae, "start", lambda _threads: None)
    engine.run()
    engine._vae.work_off()
    return events


def test_requests_of_a_burst_share_their_first_tick(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_job("first", steps=2), make_job("second", steps=2)
    events = events_of(base_dir, monkeypatch, first, second, NOTHING_FOR_A_WHILE, NOTHING_FOR_A_WHILE, Stop())
    assert [event.tick.rows for event in events if isinstance(event, Stepped)] == [4] * 4
    assert {event.id for event in events if isinstance(event, Finished)} == {"first", "second"}


def test_spare_drawings_wait_for_no_burst_and_requests_beside_them_do(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = [
        make_job("spare", steps=2, spare=True), make_job("first", steps=2), make_job("second", steps=2),
        NOTHING_FOR_A_WHILE, Stop(),
    ]  # fmt: skip
    waiting = iter([True, False])
    monkeypatch.setattr(Played, "empty", lambda _queue: not next(waiting, False))
    events = events_of(base_dir, monkeypatch, *script)
    steps = [(event.id, event.tick.rows) for event in events if isinstance(event, Stepped)]
    assert steps[:4] == [("first", 4), ("second", 4)] * 2, "they began together, and the spare one gave way"


def test_one_that_is_told_to_stop_while_it_gathers_stops(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert events_of(base_dir, monkeypatch, make_job("first"), Stop()) == []


def test_the_heap_keeps_blocks_that_the_system_would_clear_anew() -> None:
    program = """
import resource
from terroir.inference.engine.heap import give_back, keep
keep()
import numpy as np
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(12_000_000)
before = faults()
for _ in range(10): np.ones(12_000_000)
kept = faults() - before
give_back()
before = faults()
np.ones(12_000_000)
print(kept, faults() - before)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    kept, after_giving_back = map(int, run.stdout.split())
    assert 10 * kept < after_giving_back, "ten blocks against one"


def test_an_engine_that_rests_keeps_no_banks(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[int] = []
    monkeypatch.setattr(Stacks, "free", lambda stacks: freed.append(stacks.used_bytes))
    script = (make_job("one", steps=2), NOTHING_FOR_A_WHILE, NOTHING_FOR_A_WHILE, Stop())
    events_of(base_dir, monkeypatch, *script)
    assert len(freed) == 1
