"""Every batch is a function of the seed and its place: made in any order, by any worker, always the same."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import fields
from typing import Any

import pytest
import torch
from data_kit import ALPHAS, BUCKETS, alike, batches_of, config, encoded, latents
from hypothesis import given, settings
from hypothesis import strategies as st

from terroir.training.config import TrainConfig
from terroir.training.engine.data.batches import Batch
from terroir.training.engine.data.buckets import Size
from terroir.training.engine.data.dataset import Encoded
from terroir.training.engine.data.latents import Latents
from terroir.training.engine.data.texts import TextTable
from terroir.training.engine.loss import loss_of
from terroir.training.engine.noise import NoiseSchedule
from terroir.training.engine.randomness import derive


def equal(one: Batch, other: Batch) -> bool:
    def same(a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        return a is b if a is None else torch.equal(a.states, b.states)

    return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))


def joined(*parts: Batch) -> dict[str, torch.Tensor]:
    """The tensors of several batches as those of one."""
    return {
        "noisy": torch.cat([part.noisy for part in parts]),
        "timesteps": torch.cat([part.timesteps for part in parts]),
        "texts": torch.cat([part.texts.states for part in parts if part.texts]),
        "target": torch.cat([part.target for part in parts]),
        "geometry": torch.cat([part.geometry for part in parts if part.geometry is not None]),
    }


def mixed_sizes(counts: dict[int, int]) -> Encoded:
    """`counts[width]` pictures of 16 × `width` pixels, a fourth of it in latents."""
    rows = [(Size(width, 16), [latents(float(i), (4, width // 4))]) for width, n in counts.items() for i in range(n)]
    return encoded(rows)


def test_a_batch_is_what_the_seed_step_and_sample_say() -> None:
    """Written out once more, as it was before there were buckets: runs of old configurations keep their weights."""
    keys = config(seed=11, batch_size=3, gradient_accumulation_steps=2, caption_dropout=0.4, noise_offset=0.2)
    data, schedule = alike(5), NoiseSchedule(ALPHAS, "v_prediction")
    for step, part in [(0, 0), (0, 1), (7, 1)]:
        batch = batches_of(data, keys, "v_prediction").make(step, part)
        for i in range(3):
            number = step * 6 + part * 3 + i
            epoch, position = divmod(number, 5)
            shuffled = torch.randperm(5, generator=torch.Generator().manual_seed(derive(11, "order", epoch)))
            source = torch.Generator().manual_seed(derive(11, "sample", step, part * 3 + i))
            _, dropped = torch.rand(2, generator=source).tolist()
            timestep = torch.randint(100, (1,), generator=source)
            _, noise = torch.randn((2, 2, 4, 4), generator=source)
            noise = noise + 0.2 * torch.randn((2, 1, 1), generator=source)
            clean = torch.full((1, 2, 4, 4), float(shuffled[position]))
            assert torch.equal(batch.noisy[i : i + 1], schedule.add_noise(clean, noise[None], timestep))
            assert torch.equal(batch.target[i : i + 1], schedule.target(clean, noise[None], timestep))
            assert batch.texts is not None and batch.weights is None and batch.mask is None
            assert batch.texts.states[i, 0, 0] == (0 if dropped < 0.4 else shuffled[position] + 1)


@settings(deadline=None, max_examples=30)
@given(places=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1)), min_size=1, max_size=4))
def test_any_batch_can_be_made_without_those_before(places: list[tuple[int, int]]) -> None:
    keys = config(**BUCKETS, batch_size=3, gradient_accumulation_steps=2, caption_dropout=0.3)
    data = mixed_sizes({16: 4, 24: 3})
    walked = batches_of(data, keys)
    in_turn = {(step, part): walked.make(step, part) for step in range(21) for part in range(2)}
    fresh = batches_of(data, keys)
    assert all(equal(fresh.make(*place), in_turn[place]) for place in places)


@settings(deadline=None, max_examples=30)
@given(
    step=st.integers(0, 9), part=st.integers(0, 1), world=st.sampled_from([2, 3]), buckets=st.booleans(),
    prior=st.booleans(),
)  # fmt: skip
def test_workers_see_between_them_what_one_with_the_larger_batch_sees(
    step: int, part: int, world: int, buckets: bool, prior: bool
) -> None:
    common = {"gradient_accumulation_steps": 2, "caption_dropout": 0.3, "prior_loss_weight": 0.5, "min_snr_gamma": 2.0}
    common |= BUCKETS if buckets else {}
    data = alike(13, 5 if prior else 0)
    alone = batches_of(data, config(**common, batch_size=2 * world))
    shared = batches_of(data, config(**common, batch_size=2, num_workers=world))
    whole = alone.make(step, part)
    parts = [shared.make(step, part, rank, world) for rank in range(world)]
    counted = [one for one in parts if one.weights is None or one.weights.any()]
    for name, tensor in joined(whole).items():
        assert torch.equal(tensor, joined(*counted)[name]), name
    guess = torch.zeros(())
    losses = [loss_of(guess.expand_as(one.target), one) for one in parts]
    expected = loss_of(guess.expand_as(whole.target), whole)
    assert torch.isclose(torch.stack(losses).mean(), expected, rtol=1e-5)


def test_the_loss_of_a_step_is_the_mean_over_its_samples_also_with_short_passes() -> None:
    """Five pictures of one size and one of another at batch 4: passes of 4, 1 and 1, of which two make a step."""
    keys = config(**BUCKETS, batch_size=4, gradient_accumulation_steps=2)
    batches = batches_of(mixed_sizes({16: 5, 24: 1}), keys)
    lengths = set()
    for step in range(12):
        made = [batches.make(step, part) for part in range(2)]
        losses = [loss_of(torch.zeros_like(batch.target), batch) for batch in made]
        samples = torch.cat([batch.target.square().mean(dim=(1, 2, 3)) for batch in made])
        assert torch.isclose(torch.stack(losses).mean(), samples.mean(), rtol=1e-5)
        lengths.add(tuple(len(batch.target) for batch in made))
    assert {(4, 1), (1, 4), (1, 1)} >= lengths and len(lengths) > 1


def test_a_worker_without_a_sample_takes_part_with_one_that_does_not_count() -> None:
    keys = config(**BUCKETS, batch_size=1, num_workers=2)
    batches = batches_of(mixed_sizes({16: 1}), keys)
    first, second = (batches.make(0, 0, rank, 2) for rank in range(2))
    assert first.weights is not None and first.weights.tolist() == [2.0]
    assert second.weights is not None and second.weights.tolist() == [0.0]
    assert second.noisy.shape == first.noisy.shape and second.noisy.isfinite().all()


def test_latents_are_sampled_anew_at_every_step() -> None:
    certain = alike(1)
    uncertain = encoded([(Size(16, 16), [latents(0.0)])])
    uncertain.pictures[0].examples[0].posterior[1] = 1.0
    keys = config()
    assert not torch.equal(batches_of(certain, keys).make(0, 0).noisy, batches_of(uncertain, keys).make(0, 0).noisy)
    made = [batches_of(uncertain, keys).make(step, 0) for step in range(2)]
    schedule = NoiseSchedule(ALPHAS, "epsilon")
    clean = [(m.noisy - schedule.add_noise(0 * m.target, m.target, m.timesteps)) for m in made]  # target is the noise
    assert not torch.allclose(clean[0] / clean[0].std(), clean[1] / clean[1].std())


def test_every_variant_of_a_picture_and_of_its_caption_comes_up() -> None:
    """Four variants, each with its mirror image, and three orders of the caption; alike often over many steps."""
    keys = config(horizontal_flip=True, batch_size=8)
    data = encoded([(Size(16, 16), [latents(float(i)) for i in range(8)])], [(1, 2, 3)])
    schedule, examples, captions = NoiseSchedule(ALPHAS, "epsilon"), Counter[int](), Counter[int]()
    batches = batches_of(data, keys)
    for step in range(60):
        batch = batches.make(step, 0)
        noise = schedule.add_noise(0 * batch.target, batch.target, batch.timesteps)
        clean = (batch.noisy - noise) / schedule.add_noise(torch.ones(8, 1, 1, 1), torch.zeros(()), batch.timesteps)
        examples.update(clean.mean(dim=(1, 2, 3)).round().int().tolist())
        assert batch.texts is not None
        captions.update(batch.texts.states[:, 0, 0].int().tolist())
    assert set(examples) == set(range(8)) and set(captions) == {1, 2, 3}
    assert max(examples.values()) < 2 * min(examples.values()) and max(captions.values()) < 1.5 * min(captions.values())


def test_tokens_go_out_where_the_text_encoders_train() -> None:
    data = alike(3)
    tokens = torch.arange(4 * 2 * 5).view(4, 2, 5)
    data = Encoded(data.pictures, data.captions, TextTable(None, tokens))
    batch = batches_of(data, config(batch_size=2)).make(0, 0)
    assert batch.texts is None and batch.tokens is not None
    assert batch.tokens.shape == (2, 2, 5) and all(row.tolist() in tokens.tolist() for row in batch.tokens)


@pytest.mark.parametrize("dropout", [0.0, 0.5, 1.0])
def test_captions_are_dropped_in_their_share_of_uses(dropout: float) -> None:
    batches = batches_of(alike(4), config(batch_size=16, caption_dropout=dropout))
    used = [batches.make(step, 0).texts for step in range(30)]
    empty = sum(float((texts.states[:, 0, 0] == 0).sum()) for texts in used if texts) / (16 * 30)
    assert empty == pytest.approx(dropout, abs=0.07)


def test_making_a_batch_takes_next_to_nothing() -> None:
    """Of the tiny base's size; a step of it at batch 8 takes about a quarter of a second on two cores.

    The bound is wide, as machines that run tests are busy; measured alone it takes 1 to 2 ms.
    """
    size = Size(64, 64)
    data = encoded([(size, [Latents(torch.rand(2, 12, 16, 16), (64, 64, 0, 0, 64, 64), None)]) for _ in range(50)])
    batches = batches_of(data, config(batch_size=8))
    batches.make(0, 0)
    times = []
    for step in range(40):
        since = time.thread_time()
        batches.make(step, 0)
        times.append(time.thread_time() - since)
    assert sorted(times)[len(times) // 4] < 0.02


def test_the_configuration_decides_the_order() -> None:
    data = alike(8)

    def first(keys: TrainConfig) -> list[int]:
        return list(data.order(keys).pictures(0, 8))

    assert sorted(first(config(seed=1))) == list(range(8)) and first(config(seed=1)) != first(config(seed=2))
