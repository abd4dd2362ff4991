"""When requests join and whose turn it is, in simulated seconds: the denoiser and the text encoder are played."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terroir.inference.engine.messages import Failed, Finished, Stepped
from terroir.inference.engine.pipeline.model import Model
from tests.unit.inference.drawing_kit import Studio, make_job

SMALL, LARGE = 32, 64


class Simulation:
    """A studio where joins take `join_seconds` and a call takes `tick_seconds` of its pictures' width."""

    def __init__(self, model: Model) -> None:
        self.now, self.join_seconds = 100.0, 0.0
        self.tick_seconds = {SMALL: 10.0, LARGE: 10.0}
        self.joined, self.calls = Counter[int](), 0
        """Joins before each call."""
        config: Any = model.unet.config
        self._condition, self._factor = model.condition, model.native_resolution // config.sample_size
        self.studio = Studio(model, clock=lambda: self.now)

    def condition(self, *texts: Any, **named: Any) -> Any:
        self.now += self.join_seconds
        self.joined[self.calls] += 1
        return self._condition(*texts, **named)

    def predict(self, latents: torch.Tensor, *_rest: Any) -> torch.Tensor:
        self.now += self.tick_seconds[latents.shape[-1] * self._factor]
        self.calls += 1
        return torch.zeros_like(latents)

    def steps(self, job_id: str) -> int:
        return sum(event.id == job_id for event in self.studio.events if isinstance(event, Stepped))

    def finished(self, job_id: str) -> bool:
        return any(event.id == job_id for event in self.studio.events if isinstance(event, Finished))


@pytest.fixture(scope="module")
def model(base_dir: Path) -> Iterator[Model]:
    model = Model(str(base_dir))
    model.decode = lambda latents: []  # type: ignore[method-assign]  # nobody looks at the pictures
    yield model


def simulation(model: Model, patch: pytest.MonkeyPatch) -> Simulation:
    played = Simulation(model)
    patch.setattr(model, "condition", played.condition)
    patch.setattr(model, "predict", played.predict)
    return played


@given(join_seconds=st.integers(1, 40), count=st.integers(1, 12))
@settings(max_examples=15, deadline=None)
def test_joining_delays_those_who_draw_by_half_a_tick_and_one_join_at_most_and_never_stops(
    model: Model, join_seconds: int, count: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        played = simulation(model, patch)
        played.studio.submit(make_job("running", steps=20))
        played.studio.tick()
        played.join_seconds = join_seconds
        for number in range(count):
            played.studio.submit(make_job(f"new-{number}", steps=20))
        left = count
        while left:
            before, call = played.now, played.calls
            played.studio.tick()
            joined = played.joined[call]
            assert joined >= 1, "at least one a tick"
            assert played.now - before <= 10 + 5 + join_seconds
            assert joined == left or (joined + 1) * join_seconds > 5, "as many as the time allows"
            left -= joined
        played.studio.work_off()
        assert played.studio.stacks.pinned == 0


def test_all_join_at_once_when_nobody_draws(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    played = simulation(model, monkeypatch)
    played.join_seconds = 50
    for number in range(6):
        played.studio.submit(make_job(f"new-{number}"))
    played.studio.tick()
    assert played.joined[0] == 6
    assert {event.id for event in played.studio.events} == {f"new-{number}" for number in range(6)}


@given(large=st.integers(10, 200), small=st.integers(1, 10))
@settings(max_examples=10, deadline=None)
def test_a_long_request_of_large_pictures_does_not_starve_a_small_one_nor_the_reverse(
    model: Model, large: int, small: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        played = simulation(model, patch)
        played.tick_seconds = {SMALL: float(small), LARGE: float(large)}
        played.studio.submit(make_job("large", width=LARGE, height=LARGE, steps=30))
        played.studio.tick()
        began = played.now
        played.studio.submit(make_job("small", steps=10))
        while not played.finished("small"):
            played.studio.tick()
        # It has half of the device's time from its joining on; calls can't be interrupted: one more of the large ones.
        assert played.now - began <= 2 * 10 * small + 2 * large
        made = played.steps("large")
        for number in range(400):
            if played.steps("large") > made:
                break
            played.studio.submit(make_job(f"stream-{number}", steps=5))
            played.studio.tick()
        assert played.steps("large") > made, "an endless stream of small pictures does not stop it"
        assert played.now - began <= 2 * 10 * small + 6 * large + 10 * small


def test_a_request_larger_than_a_batch_runs_alone_and_others_do_not_wait_for_its_end(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = simulation(model, monkeypatch)
    played.studio = Studio(model, clock=lambda: played.now, max_batch_rows=4)
    played.studio.submit(make_job("huge", seeds=(1, 2, 3, 4), steps=6))
    played.studio.submit(make_job("one", steps=3))
    played.studio.submit(make_job("two", steps=3))
    while not played.finished("one"):
        played.studio.tick()
    assert played.finished("two") and not played.finished("huge")
    rows = {event.id: event.tick.rows for event in played.studio.events if isinstance(event, Stepped)}
    assert rows == {"huge": 8, "one": 4, "two": 4}
    played.studio.work_off()
    assert played.finished("huge")


def test_a_deadline_ends_a_request_between_two_ticks_and_leaves_nothing(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = simulation(model, monkeypatch)
    played.studio.submit(make_job("short", deadline=played.now + 25, steps=9, preview_interval_steps=1))
    played.studio.submit(make_job("long", steps=9))
    played.studio.work_off()
    (failed,) = [event for event in played.studio.events if isinstance(event, Failed)]
    assert (failed.id, failed.code, played.steps("short")) == ("short", "DEADLINE_EXCEEDED", 3)
    assert "3 of 9 steps" in failed.message
    assert played.finished("long") and played.studio.stacks.pinned == 0
