"""Where denoising begins: the arc between two noises, and the steps that are left from a picture on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from terroir.inference.engine.messages import SAMPLERS
from terroir.inference.engine.pipeline.samplers import build_sampler
from terroir.inference.engine.pipeline.start import noise_of, remaining_timesteps, slerp

SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
seeds = st.integers(0, 2**32 - 1)
shares = st.floats(0, 1)
shapes = st.tuples(st.sampled_from((4, 12)), st.integers(2, 9), st.integers(2, 9))


def noise(shape: tuple[int, ...], *found: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return noise_of(shape, [torch.Generator("cpu").manual_seed(seed) for seed in found], dtype)


def lengths(pictures: Tensor) -> Tensor:
    return pictures.double().flatten(1).norm(dim=1)


@given(shapes, seeds, seeds)
def test_the_arc_ends_at_both_noises_bit_for_bit(shape: tuple[int, ...], origin: int, own: int) -> None:
    start, end = noise(shape, origin), noise(shape, own)
    assert torch.equal(slerp(start, end, 0.0), start)
    assert torch.equal(slerp(start, end, 1.0), end)


@given(shapes, seeds, shares)
def test_between_a_noise_and_itself_there_is_only_it(shape: tuple[int, ...], seed: int, share: float) -> None:
    start = noise(shape, seed)
    torch.testing.assert_close(slerp(start, start.clone(), share), start, rtol=1e-5, atol=1e-5)


@given(shapes, seeds, seeds, shares)
def test_on_a_sphere_the_arc_stays_on_it_and_turns_by_its_share(
    shape: tuple[int, ...], origin: int, own: int, share: float
) -> None:
    start, end = (found / lengths(found).view(-1, 1, 1, 1) for found in (noise(shape, origin), noise(shape, own)))
    between = slerp(start, end, share)
    torch.testing.assert_close(lengths(between), torch.ones(1, dtype=torch.float64), rtol=1e-4, atol=1e-4)
    assert angle(start, between) == pytest.approx(share * angle(start, end), abs=2e-3)
    assert angle(between, end) == pytest.approx((1 - share) * angle(start, end), abs=2e-3)


@given(seeds, seeds, shares)
def test_noise_between_two_noises_is_as_loud_as_they_are(origin: int, own: int, share: float) -> None:
    """A straight line would lose 29 % half-way."""
    start, end = noise((4, 24, 24), origin), noise((4, 24, 24), own)
    between = lengths(slerp(start, end, share))
    low, high = sorted((float(lengths(start)), float(lengths(end))))
    assert 0.97 * low <= float(between) <= 1.03 * high


@given(shapes, seeds, seeds, shares)
def test_the_arc_is_the_same_from_either_end(shape: tuple[int, ...], origin: int, own: int, share: float) -> None:
    start, end = noise(shape, origin), noise(shape, own)
    torch.testing.assert_close(slerp(start, end, share), slerp(end, start, 1 - share), rtol=1e-4, atol=1e-4)


@given(shapes, st.lists(seeds, min_size=1, max_size=4), seeds, shares)
def test_every_picture_has_an_arc_of_its_own(shape: tuple[int, ...], own: list[int], origin: int, share: float) -> None:
    start, end = noise(shape, *[origin] * len(own)), noise(shape, *own)
    together = slerp(start, end, share)
    alone = [slerp(noise(shape, origin), noise(shape, seed), share) for seed in own]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)


@given(seeds, seeds, shares)
def test_opposite_and_half_precision_noises_have_finite_arcs(origin: int, own: int, share: float) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        start, end = (noise((4, 6, 6), seed, dtype=dtype) for seed in (origin, own))
        for other in (end, -start):
            between = slerp(start, other, share)
            assert between.dtype == dtype
            assert between.shape == start.shape
            assert torch.isfinite(between).all()


def angle(first: Tensor, second: Tensor) -> float:
    """Radians, by the chord: an arc cosine is blind to small angles."""
    return float(2 * torch.asin((lengths(first - second) / 2).clamp(max=1)))


@pytest.mark.parametrize("sampler", SAMPLERS)
@given(steps=st.integers(1, 60), strength=st.floats(0.001, 1))
def test_a_picture_is_given_the_last_steps_in_proportion_to_its_strength(
    sampler: str, steps: int, strength: float
) -> None:
    scheduler = build_sampler(sampler, SCHEDULE)
    scheduler.set_timesteps(steps)
    whole = scheduler.timesteps.clone()
    left = remaining_timesteps(scheduler, steps, strength)
    assert len(left) == max(1, int(steps * strength))
    assert torch.equal(left, whole[len(whole) - len(left) :])
