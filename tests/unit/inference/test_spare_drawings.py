"""Drawings that nobody waits for: they take rows that others leave, give way at the next tick, and end as any other.

In most tests time is simulated and the denoiser is played; the pictures are real where they are compared.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terroir.inference.engine.messages import Failed, Finished, Stepped
from terroir.inference.engine.pipeline.model import Model
from terroir.inference.engine.spare_room import LATER_SHARE
from terroir.lora.adapter import Adapter
from tests.unit.inference.drawing_kit import DressedJob, Studio, make_job, random_adapter
from tests.unit.inference.test_engine_any_batch import TOLERANCE, Tracked

BOUND = 0.05
Cost = Callable[[int], float]


def linear(rows: int) -> float:
    """As on a CPU."""
    return 0.02 * rows


def flat(rows: int) -> float:
    """As on a GPU that waits for the host."""
    return 0.01


class Played:
    """A studio in simulated time; `cost` is that of a call by its rows, `mixed` times as much where they differ."""

    def __init__(
        self, model: Model, patch: pytest.MonkeyPatch, cost: Cost, *, mixed: float = 1.0, **fields: Any
    ) -> None:
        self.now, self.join_seconds, self.cost, self.mixed = 100.0, 0.0, cost, mixed
        self.studio = Studio(model, clock=lambda: self.now, **fields)
        self.calls: list[list[str]] = []
        """Jobs that made a step in each call."""
        self.took: list[float] = []
        self._condition, self._mixed = model.condition, False
        self._worn, self._seen = self.studio.stacks.worn, 0
        patch.setattr(model, "predict", self.predict)
        patch.setattr(model, "condition", self.condition)
        patch.setattr(self.studio.stacks, "worn", self.worn)

    def worn(self, rows: Sequence[Any], lane: object) -> Any:
        self._mixed = len({composition for composition, _ in rows}) > 1
        return self._worn(rows, lane)

    def condition(self, *texts: Any, **named: Any) -> Any:
        self.now += self.join_seconds
        return self._condition(*texts, **named)

    def seconds(self, rows: int, mixed: bool) -> float:
        return self.cost(rows) * (self.mixed if mixed else 1.0)

    def predict(self, latents: torch.Tensor, *_rest: Any) -> torch.Tensor:
        self.took.append(self.seconds(len(latents), self._mixed))
        self.now += self.took[-1]
        return torch.zeros_like(latents)

    def tick(self) -> list[str]:
        """One tick; the jobs that made a step in it."""
        self.studio.tick()
        events, self._seen = self.studio.events[self._seen :], len(self.studio.events)
        went = [event.id for event in events if isinstance(event, Stepped)]
        if went:
            self.calls.append(went)
        return went

    def work_off(self) -> None:
        while self.studio.loop.busy:
            self.tick()

    def ended(self, kind: type[Finished] | type[Failed] = Finished) -> set[str]:
        return {event.id for event in self.studio.events if isinstance(event, kind)}


@pytest.fixture(scope="module")
def model(base_dir: Path) -> Model:
    return Model(str(base_dir))


@pytest.fixture(scope="module")
def styles(model: Model) -> list[Adapter]:
    return [random_adapter(model, seed, rank=1) for seed in range(2)]


@pytest.fixture
def undecoded(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setattr(model, "decode", lambda latents: [])
    yield monkeypatch


def spare(number: int, styles: Sequence[Adapter] = (), **fields: Any) -> DressedJob:
    worn = {f"style-{number % len(styles)}": (styles[number % len(styles)], 1.0, 0.0)} if styles else {}
    return make_job(f"spare-{number}", worn, spare=True, **fields)


def awaited(call: Sequence[str]) -> list[str]:
    return [job for job in call if not job.startswith("spare")]


ARRIVALS = st.lists(
    st.tuples(st.sampled_from(["spare", "awaited", "cancel"]), st.integers(1, 3), st.integers(0, 6), st.booleans()),
    min_size=1, max_size=14,
)  # fmt: skip
"""What comes, its seeds, ticks until the next comes, and whether it wears a style."""
COSTS = st.one_of(
    st.just(linear), st.just(flat),
    st.tuples(st.floats(0.001, 0.1), st.floats(0.0005, 0.03)).map(lambda by: lambda rows: max(by[0], by[1] * rows)),
)  # fmt: skip


def play(
    model: Model, styles: Sequence[Adapter], cost: Cost, arrivals: Sequence[tuple[str, int, int, bool]], *, most: int,
    with_spare: bool,
) -> Played:  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "decode", lambda latents: [])
        played = Played(model, patch, cost, mixed=1.5, max_batch_rows=most)
        for number, (kind, seeds, ticks, dressed) in enumerate(arrivals):
            fields: dict[str, Any] = {"seeds": tuple(range(seeds)), "steps": 4}
            worn = {"style-0": (styles[0], 1.0, 0.0)} if dressed else None
            if kind == "awaited":
                played.studio.submit(make_job(f"job-{number}", worn, **fields))
            elif with_spare and kind == "spare":
                for copy in range(4):
                    played.studio.submit(make_job(f"spare-{number}-{copy}", worn, spare=True, **fields))
            elif with_spare and number:
                played.studio.loop.cancel(f"spare-{number - 1}-0")
            for _ in range(ticks):
                played.tick()
        played.work_off()
    return played


@given(cost=COSTS, arrivals=ARRIVALS, most=st.sampled_from([4, 8, 32]))
@settings(max_examples=40, deadline=None)
def test_who_waits_shares_calls_with_the_same_others_and_is_hardly_later_and_every_spare_job_ends(
    model: Model, styles: list[Adapter], cost: Cost, arrivals: list[tuple[str, int, int, bool]], most: int
) -> None:
    alone = play(model, styles, cost, arrivals, most=most, with_spare=False)
    beside = play(model, styles, cost, arrivals, most=most, with_spare=True)
    assert [group for call in beside.calls if (group := awaited(call))] == alone.calls
    alone_together = [
        took for call, took in zip(beside.calls, beside.took, strict=True) if not awaited(call) and len(set(call)) > 1
    ]
    # Rows that differ cost 1.5 times as much here, which the first call of a kind has to find out, and no second one.
    late = [took for took in alone_together if took > BOUND * (1 + 1e-9)]
    assert len(set(late)) == len(late) and all(took <= 1.5 * BOUND * (1 + 1e-9) for took in late)
    seconds = [took for call, took in zip(beside.calls, beside.took, strict=True) if awaited(call)]
    for with_them, without in zip(seconds, alone.took, strict=True):
        assert with_them <= (1 + LATER_SHARE) * without * (1 + 1e-9)
    came = {f"spare-{number}-{copy}" for number, (kind, *_) in enumerate(arrivals) if kind == "spare"
            for copy in range(4)}  # fmt: skip
    cancelled = {f"spare-{number - 1}-0" for number, (kind, *_) in enumerate(arrivals) if kind == "cancel"}
    assert came - cancelled <= {job for job in beside.ended() if job.startswith("spare")} <= came
    assert not beside.ended(Failed) and beside.studio.stacks.pinned == 0 and not beside.studio.loop.busy


def test_where_rows_cost_linearly_spare_drawings_rest_while_anybody_draws(
    model: Model, undecoded: pytest.MonkeyPatch
) -> None:
    played = Played(model, undecoded, linear)
    for number in range(3):
        played.studio.submit(spare(number, steps=5))
    for _ in range(3):
        played.tick()
    assert played.calls == [["spare-0"]] * 2, "one drawing a call, after it joined"
    played.studio.submit(make_job("awaited", steps=6))
    played.work_off()
    assert played.calls[2:] == [["awaited"]] * 6 + [["spare-0"]] * 3 + [["spare-1"]] * 5 + [["spare-2"]] * 5
    assert {(tick.offered, tick.filled) for tick in played.studio.spare_ticks} == {(2, 2)}


def test_where_rows_cost_nothing_spare_drawings_fill_the_calls_of_those_who_wait(
    model: Model, styles: list[Adapter], undecoded: pytest.MonkeyPatch
) -> None:
    played = Played(model, undecoded, flat)
    for number in range(64):
        played.studio.submit(spare(number, styles, steps=20))
    for _ in range(40):
        played.tick()
    played.studio.submit(make_job("awaited", {"style-1": (styles[1], 1.0, 0.0)}, steps=60))
    del played.studio.spare_ticks[:]
    while "awaited" not in played.ended():
        played.tick()
        if len(played.studio.spare_ticks) == 50:
            break
    ticks = played.studio.spare_ticks
    assert {tick.offered for tick in ticks} <= {0, 30}, "all rows but those of the one who waits"
    offered, filled = sum(tick.offered for tick in ticks), sum(tick.filled for tick in ticks)
    assert offered > 0 and filled >= 0.9 * offered


def test_a_spare_drawing_joins_where_nobody_waits_to_join_one_a_tick_and_rarely_where_it_takes_long(
    model: Model, undecoded: pytest.MonkeyPatch
) -> None:
    played = Played(model, undecoded, flat)
    for rows in (2, 8):  # calls of these costs were made before
        played.studio.loop._room.learn(shape_of(played), rows, 0.01, mixed=False, beside=False)
    played.studio.submit(make_job("first", steps=40))
    for number in range(20):
        played.studio.submit(spare(number, steps=40))
    assert played.tick() == ["first"], "who waits joined in this tick"
    assert played.tick() == ["first", "spare-0"]
    assert played.tick() == ["first", "spare-0", "spare-1"]
    played.studio.submit(make_job("second", steps=40))
    assert played.tick() == ["first", "second", "spare-0", "spare-1"]
    played.join_seconds = 0.005
    for _ in range(30):
        played.tick()
    joined = {job for call in played.calls for job in call if job.startswith("spare")}
    assert len(joined) <= 2 + 30 * 0.01 * 0.1 / 0.005 + 1, "a tenth of the time at most"


def test_while_a_picture_that_somebody_waits_for_is_decoded_spare_drawings_rest(
    model: Model, undecoded: pytest.MonkeyPatch
) -> None:
    played = Played(model, undecoded, linear)
    played.studio.submit(make_job("awaited", steps=1))
    played.studio.submit(spare(0))
    played.studio.loop.tick()
    assert played.studio.vae.attended and not played.studio.loop.busy
    played.studio.loop.tick()
    assert len(played.took) == 1
    played.studio.vae.work_off()
    assert not played.studio.vae.attended and played.studio.loop.busy


def test_jobs_that_wait_for_rows_take_no_memory_and_leave_when_cancelled(
    model: Model, undecoded: pytest.MonkeyPatch
) -> None:
    played = Played(model, undecoded, linear)
    for number in range(64):
        played.studio.submit(spare(number, steps=2))
    for _ in range(5):
        played.tick()
    assert played.studio.stacks.pinned == 1
    for number in range(64):
        played.studio.loop.cancel(f"spare-{number}")
    assert played.studio.stacks.pinned == 0 and not played.studio.loop.busy


def test_a_deadline_ends_a_spare_job_that_rests_and_one_that_never_began(
    model: Model, undecoded: pytest.MonkeyPatch
) -> None:
    played = Played(model, undecoded, linear)
    for number in range(2):
        played.studio.submit(spare(number, deadline=played.now + 0.1))
    for _ in range(2):
        played.tick()
    played.studio.submit(make_job("awaited", steps=5))
    played.work_off()
    assert played.ended() == {"awaited"} and played.ended(Failed) == {"spare-0", "spare-1"}
    assert played.studio.stacks.pinned == 0


def shape_of(played: Played) -> Any:
    """Of small guided pictures."""
    studio = played.studio
    studio.submit(make_job("probe", steps=1))
    studio.loop.tick()
    (shape,) = {kind[0] for kind in studio.loop._room._costs._kinds}  # type: ignore[index]
    studio.vae.work_off()
    played.tick()
    del played.calls[:], played.took[:]
    return shape


def lacking(model: Model, patch: pytest.MonkeyPatch, most: int, error: Exception) -> Counter[int]:
    """A denoiser that fails beyond so many rows; how often it was tried with how many."""
    tried, real = Counter[int](), model.predict

    def predict(latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        tried[len(latents)] += 1
        if len(latents) > most:
            raise error
        return real(latents, *rest)

    patch.setattr(model, "predict", predict)
    return tried


def test_memory_that_does_not_suffice_for_all_is_left_to_those_who_wait(
    model: Model, undecoded: pytest.MonkeyPatch
) -> None:
    played = Played(model, undecoded, flat)
    for number in range(6):
        played.studio.submit(spare(number, steps=30))
    for _ in range(12):
        played.tick()
    tried = lacking(model, undecoded, 4, torch.OutOfMemoryError("pretended"))
    for name in ("one", "two"):
        played.studio.submit(make_job(name, steps=10))
    del played.calls[:]
    while played.ended() != {"one", "two"}:
        played.tick()
    assert all(awaited(call) == ["one", "two"] for call in played.calls)
    assert 1 <= sum(count for rows, count in tried.items() if rows > 4) <= 2, "each try halves what is tried next"
    played.work_off()
    assert not played.ended(Failed) and len(played.ended()) == 8, "spare drawings went on in smaller calls"


def test_an_error_of_a_call_with_spare_rows_fails_no_one_who_waits(model: Model, undecoded: pytest.MonkeyPatch) -> None:
    played = Played(model, undecoded, flat)
    for number in range(3):
        played.studio.submit(spare(number, steps=30))
    for _ in range(12):
        played.tick()
    lacking(model, undecoded, 2, RuntimeError("pretended"))
    played.studio.submit(make_job("awaited", steps=10))
    played.work_off()
    assert played.ended() == {"awaited"} and played.ended(Failed) == {"spare-0", "spare-1", "spare-2"}
    assert played.studio.stacks.pinned == 0


@pytest.mark.parametrize(("plan", "static_rows"), [("auto", 0), ("slots", 0), ("concat", 0), ("copy", 0), ("auto", 8)])
def test_a_picture_is_the_same_however_often_its_drawing_was_paused(model: Model, plan: Any, static_rows: int) -> None:
    adapters = [random_adapter(model, seed) for seed in range(2)]
    wanted = make_job("wanted", {"style-0": (adapters[0], 0.9, 0.4)}, steps=6, sampler="dpmpp-2m", spare=True)
    alone = Tracked(model)
    alone.run(wanted)
    crowd, chance = Tracked(model, plan=plan, static_rows=static_rows), random.Random(4)
    crowd.loop._room.beside = lambda *_given, **_named: chance.choice((0, 2, 4))  # type: ignore[method-assign]
    crowd.submit(wanted)
    for number in range(8):
        worn = {f"style-{number % 2}": (adapters[number % 2], 0.9, 0.4)}
        crowd.submit(make_job(f"awaited-{number}", worn, steps=chance.randint(1, 3)))
        if number % 3 == 0:
            crowd.submit(make_job(f"spare-{number}", worn, steps=3, spare=True))
        for _ in range(chance.randint(1, 4)):
            crowd.tick()
    crowd.work_off()
    assert not [event for event in crowd.events if isinstance(event, Failed)]
    assert (alone.latents["wanted"] - crowd.latents["wanted"]).abs().max() < TOLERANCE
    assert crowd.stacks.pinned == (1 if static_rows else 0)


def test_where_the_two_never_share_a_call_spare_drawings_take_no_merged_weights_from_a_style_that_is_asked_for_again(
    model: Model, styles: list[Adapter]
) -> None:
    """Each request waited for its weights to be merged anew, 16 ms of 690, when preparations had drawn since."""
    studio = Studio(model)
    again = {"asked for": (styles[0], 0.7, 0.0)}
    studio.run(make_job("first", again))
    kept = {key for key in studio.stacks._batches if again.keys() & {d for one, _ in key[1] for d in one.digests}}
    for number in range(4):
        studio.run(make_job(f"spare-{number}", {f"cover-{number}": (styles[1], 0.5, 0.0)}, spare=True))
    assert kept and kept <= studio.stacks._batches.keys()
