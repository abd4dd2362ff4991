"""Requests that join, leave and share the device."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from terroir.inference.engine.drawing import Drawing
from terroir.inference.engine.messages import SAMPLERS, Failed, Finished, Previewed, Stepped
from terroir.inference.engine.pipeline.model import Model
from tests.unit.inference.drawing_kit import Studio, make_job, random_adapter, weights_digest


@pytest.fixture(scope="module")
def model(base_dir: Path) -> Model:
    return Model(str(base_dir))


def test_base_weights_are_bit_identical_after_random_churn(model: Model) -> None:
    before, identities = weights_digest(model), {n: id(p) for n, p in model.unet.named_parameters()}
    rng = random.Random(5)
    adapters = [random_adapter(model, seed) for seed in range(3)]
    studio = Studio(model, merged_budget_bytes=4 << 20)  # less than one stack: every leave evicts
    for number in range(40):
        if rng.random() < 0.4:
            worn = {
                f"digest-{index}": (adapters[index], rng.uniform(-1, 1), rng.choice((0.0, 0.7)))
                for index in rng.sample(range(3), rng.randint(0, 3))
            }
            studio.submit(make_job(f"job-{number}", worn, steps=rng.randint(1, 4)))
        if rng.random() < 0.2:
            studio.loop.cancel(f"job-{rng.randrange(number + 1)}")
        studio.tick()
    studio.work_off()
    assert not [event for event in studio.events if isinstance(event, Failed)]
    assert [event for event in studio.events if isinstance(event, Finished)]
    assert weights_digest(model) == before
    assert {n: id(p) for n, p in model.unet.named_parameters()} == identities
    assert studio.stacks.used_bytes <= 4 << 20


def test_an_error_inside_a_call_leaves_the_base_weights_and_other_requests(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, studio = weights_digest(model), Studio(model)
    adapter = random_adapter(model, 1)
    real = model.predict

    def fail_beyond_two_rows(latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(latents) > 2:
            raise torch.OutOfMemoryError("pretended")
        return real(latents, *rest)

    monkeypatch.setattr(model, "predict", fail_beyond_two_rows)
    studio.run(make_job("hit", {"digest": (adapter, 1.0, 1.0)}, seeds=(1, 2)), make_job("spared"))
    failed = [event for event in studio.events if isinstance(event, Failed)]
    assert [(event.id, event.reason) for event in failed] == [("hit", "DEVICE_MEMORY_FULL")]
    assert len(studio.pictures("spared")) == 1
    assert weights_digest(model) == before


def test_a_request_draws_the_same_picture_alone_and_among_others_that_join_and_leave(model: Model) -> None:
    one, two = random_adapter(model, 1), random_adapter(model, 2)
    wanted = make_job("wanted", {"one": (one, 0.9, 0.4)}, steps=6)
    alone = Studio(model)
    alone.run(wanted)
    crowd = Studio(model)
    crowd.submit(make_job("same", {"one": (one, 0.9, 0.4)}, steps=4, seeds=(1, 2), guidance_scale=7.0))
    crowd.submit(make_job("other", {"two": (two, 1.0, 1.0)}, steps=9, sampler="euler-a"))
    for _ in range(2):
        crowd.tick()
    crowd.submit(wanted)
    crowd.submit(make_job("unguided", {"one": (one, 0.9, 0.4)}, steps=2, guidance_scale=1.0, sampler="dpmpp-2m"))
    crowd.tick()
    crowd.loop.cancel("other")
    crowd.work_off()
    assert np.abs(alone.pictures("wanted")[0] - crowd.pictures("wanted")[0]).max() <= 2
    assert not crowd.pictures("other")
    assert len(crowd.pictures("same")) == 2 and len(crowd.pictures("unguided")) == 1


def test_requests_share_a_call_whatever_they_wear_as_far_as_its_rows_go(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    real = model.predict

    def count(latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        rows.append(len(latents))
        return real(latents, *rest)

    monkeypatch.setattr(model, "predict", count)
    adapter = random_adapter(model, 1)
    studio = Studio(model, max_batch_rows=6)
    studio.run(
        make_job("a", {"digest": (adapter, 1.0, 0.0)}, steps=2), make_job("plain", steps=2, sampler="euler"),
        make_job("b", {"digest": (adapter, 0.5, 0.0)}, steps=2, seeds=(1, 2)), make_job("c", steps=2),
    )  # fmt: skip
    order = [event.id for event in studio.events if isinstance(event, Stepped)]
    assert rows[:2] == [6, 6], "a, plain and c fill a call of six rows, then b, which waited longest, with one of them"
    assert order[:5] == ["a", "plain", "c", "b", "a"]
    assert sorted(order) == sorted(["a", "b", "c", "plain"] * 2)


def test_a_deadline_ends_a_request_at_its_next_step(model: Model) -> None:
    studio = Studio(model)
    studio.run(make_job("late", deadline=time.monotonic() - 1), make_job("timely", deadline=time.monotonic() + 600))
    (failed,) = [event for event in studio.events if isinstance(event, Failed)]
    assert (failed.id, failed.code) == ("late", "DEADLINE_EXCEEDED")
    assert len(studio.pictures("timely")) == 1


def test_a_picture_that_is_not_a_number_is_an_error(model: Model) -> None:
    wild = random_adapter(model, 1, strength=1e12)
    studio = Studio(model)
    studio.run(make_job("wild", {"digest": (wild, 2.0, 0.0)}), make_job("calm"))
    (failed,) = [event for event in studio.events if isinstance(event, Failed)]
    assert (failed.id, failed.reason) == ("wild", "PICTURE_NOT_FINITE")
    assert [event.id for event in studio.events if isinstance(event, Finished)] == ["calm"]


def test_a_vae_that_overflows_on_one_picture_spoils_no_other(model: Model) -> None:
    """SD 1.5's and SDXL's VAEs do so in half precision: the latents are numbers, the picture isn't."""
    calm = torch.zeros_like(Drawing(make_job("job"), model, Studio(model).stacks).latents)
    with torch.inference_mode():
        (expected,) = model.decode(calm)
        assert model.decode(torch.cat([calm * torch.nan, calm, calm + 1e38])) == [None, expected, None]


def test_previews_come_at_the_interval_for_every_seed(model: Model) -> None:
    studio = Studio(model)
    studio.run(make_job("job", steps=5, seeds=(1, 2), preview_interval_steps=2))
    previews = [(event.step, event.index) for event in studio.events if isinstance(event, Previewed)]
    assert previews == [(2, 0), (2, 1), (4, 0), (4, 1)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_previews_show_the_picture_that_the_sampler_expects_and_not_the_noise(model: Model, sampler: str) -> None:
    """A denoiser that knows the picture is asked twice in eight steps: the sampler knows it too, its latents don't."""
    drawing = Drawing(make_job("job", steps=8, sampler=sampler), model, Studio(model).stacks)
    picture = torch.randn(drawing.latents.shape, generator=torch.Generator().manual_seed(1))
    kept = DDIMScheduler.from_pretrained(model.folder / "scheduler").alphas_cumprod
    for _ in range(2):
        latents, timesteps = drawing.rows()
        share = kept[timesteps.long()].view(-1, 1, 1, 1)
        noise = (latents - share.sqrt() * picture) / (1 - share).sqrt()
        drawing.advance(share.sqrt() * noise - (1 - share).sqrt() * picture)  # the base predicts velocity
    assert (drawing.outlook - picture).abs().max() < 0.1
    assert (drawing.latents - picture).abs().max() > 1


def test_only_a_prompt_beyond_the_text_encoders_length_is_reported_as_cut(model: Model) -> None:
    studio = Studio(model)
    studio.run(make_job("short"), make_job("long", prompt="a red cat " * 40))
    warnings = {event.id: event.warnings for event in studio.events if isinstance(event, Finished)}
    assert not warnings["short"] and len(warnings["long"]) == 1
