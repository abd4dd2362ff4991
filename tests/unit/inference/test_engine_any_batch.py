"""A request draws the same picture alone and in any batch, whoever joins, leaves or fails beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terroir.inference.engine.decoding import Denoised
from terroir.inference.engine.messages import SAMPLERS, Failed, Finished, Raster, Start
from terroir.inference.engine.pipeline.model import Model
from terroir.lora.adapter import Adapter
from tests.unit.inference.drawing_kit import DressedJob, Studio, make_job, random_adapter

TOLERANCE = 3e-4
"""Largest difference of latents, whose size is about 1 to 10: other batch sizes round otherwise, steps add it up."""
PICTURE = Raster(32, 32, bytes(range(256)) * 12)

STARTS = st.sampled_from(
    [Start(), Start(), Start(PICTURE, 0.6), Start(variation_of=5, variation_strength=0.3)],
)
WORN = st.dictionaries(
    st.integers(0, 2), st.tuples(st.sampled_from([-0.8, 0.5, 1.0]), st.sampled_from([0.0, 0.6])), max_size=3
)
WISHES = st.fixed_dictionaries(
    {
        "worn": WORN,
        "start": STARTS,
        "steps": st.integers(2, 5),
        "guidance_scale": st.sampled_from([1.0, 3.0, 7.5]),
        "sampler": st.sampled_from(SAMPLERS),
        "seeds": st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple),
        "prompt": st.sampled_from(["a red cat", "two ships in a storm", ""]),
    }
)


@dataclass(frozen=True)
class Neighbour:
    """Another request: what it is, when it joins, when it is cancelled, if it is."""

    wish: dict[str, Any]
    joins: int
    cancelled: int | None
    wide: bool


NEIGHBOURS = st.lists(
    st.builds(
        Neighbour, wish=WISHES, joins=st.integers(0, 4), cancelled=st.none() | st.integers(1, 6), wide=st.booleans()
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def model(base_dir: Path) -> Model:
    return Model(str(base_dir), device="cpu")


class Tracked(Studio):
    """Keeps the last latents of each request."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.latents: dict[str, torch.Tensor] = {}
        finish = self.vae.finish

        def keep(denoised: Denoised) -> None:
            self.latents[denoised.job.id] = denoised.latents.clone()
            finish(denoised)

        self.vae.finish = keep  # type: ignore[method-assign]


@cache
def adapter(model: Model, seed: int) -> Adapter:
    return random_adapter(model, seed, strength=0.05)


def job_of(model: Model, job_id: str, wish: dict[str, Any], *, wide: bool = False) -> DressedJob:
    fields = {name: value for name, value in wish.items() if name != "worn"}
    if wide:
        fields |= {"width": 64, "start": replace(fields["start"], picture=None)}
    worn = {f"style-{seed}": (adapter(model, seed), *weights) for seed, weights in wish["worn"].items()}
    return make_job(job_id, worn, **fields)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(wish=WISHES, neighbours=NEIGHBOURS, joins=st.integers(0, 3), most_rows=st.sampled_from([4, 8, 32]))
def test_alone_and_in_any_batch(
    model: Model, wish: dict[str, Any], neighbours: list[Neighbour], joins: int, most_rows: int
) -> None:
    wanted = job_of(model, "wanted", wish)
    alone = Tracked(model)
    alone.run(wanted)
    crowd = Tracked(model, max_batch_rows=most_rows)
    for tick in range(8):
        if tick == joins:
            crowd.submit(wanted)
        for number, neighbour in enumerate(neighbours):
            if tick == neighbour.joins:
                crowd.submit(job_of(model, f"other-{number}", neighbour.wish, wide=neighbour.wide))
            if tick == neighbour.cancelled:
                crowd.loop.cancel(f"other-{number}")
        crowd.vae.work_off()
        crowd.tick()
    crowd.work_off()
    assert not [event for event in crowd.events if isinstance(event, Failed)]
    assert (alone.latents["wanted"] - crowd.latents["wanted"]).abs().max() < TOLERANCE
    finished = {event.id for event in crowd.events if isinstance(event, Finished)}
    assert finished >= {"wanted"} | {f"other-{n}" for n, other in enumerate(neighbours) if other.cancelled is None}
    assert crowd.stacks.pinned == 0 and not crowd.loop.busy


@pytest.mark.parametrize("victim", ["not a number", "out of memory"])
def test_neighbours_that_fail_change_nothing(model: Model, monkeypatch: pytest.MonkeyPatch, victim: str) -> None:
    wish = {"worn": {1: (0.5, 0.6)}, "steps": 5, "sampler": "dpmpp-2m"}
    wanted = job_of(model, "wanted", wish)
    alone = Tracked(model)
    alone.run(wanted)
    crowd, real = Tracked(model), model.predict

    def fail(latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(latents) > 2:
            raise torch.OutOfMemoryError("pretended")
        return real(latents, *rest)

    crowd.submit(wanted)
    crowd.tick()
    if victim == "out of memory":
        monkeypatch.setattr(model, "predict", fail)
        crowd.submit(make_job("victim", seeds=(1, 2)))
    else:
        crowd.submit(make_job("victim", {"wild": (random_adapter(model, 9, strength=1e12), 2.0, 0.0)}))
    crowd.work_off()
    assert [event.id for event in crowd.events if isinstance(event, Failed)] == ["victim"]
    assert (alone.latents["wanted"] - crowd.latents["wanted"]).abs().max() < TOLERANCE
    assert crowd.stacks.pinned == 0
