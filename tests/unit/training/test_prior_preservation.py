"""Prior preservation: regularisation pictures take their share of a run, at a weight of their own."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from data_kit import BUCKETS, alike, batches_of, config, encoded, latents
from hypothesis import given, settings
from hypothesis import strategies as st
from training_kit import Bench, MemorySinks, flat, pictures, png

from terroir.training.engine.data.buckets import Size
from terroir.training.engine.data.order import SampleOrder, total_steps
from terroir.training.engine.loss import loss_of
from terroir.training.engine.ports import Picture
from terroir.training.errors import CheckpointMismatch

PRIOR = [Picture(f"r{i}.png", png(50 + i), f"a street number {i}") for i in range(2)]


def samples(order: SampleOrder, count: int) -> list[int]:
    return [order.pictures(number, 1)[0] for number in range(count)]


@settings(deadline=None, max_examples=40)
@given(
    own=st.integers(1, 9),
    prior=st.integers(1, 9),
    share=st.fractions(Fraction(1, 20), Fraction(19, 20), max_denominator=20),
    count=st.integers(1, 200),
)
def test_the_share_holds_at_every_length_and_both_kinds_are_used_once_an_epoch(
    own: int, prior: int, share: Fraction, count: int
) -> None:
    used = samples(SampleOrder(1, own, prior, share), count)
    theirs = [picture - own for picture in used if picture >= own]
    assert len(theirs) == int(count * share)  # never more than one away from the exact share
    for taken, total in (([picture for picture in used if picture < own], own), (theirs, prior)):
        for epoch in range(len(taken) // total):
            assert sorted(taken[epoch * total : (epoch + 1) * total]) == list(range(total))


def test_the_positions_are_spread_evenly() -> None:
    used = samples(SampleOrder(1, 7, 3, Fraction(1, 8)), 80)
    assert [i for i, picture in enumerate(used) if picture >= 7] == list(range(7, 80, 8))


def test_pictures_keep_their_order_whether_there_is_a_prior_or_not() -> None:
    plain = samples(SampleOrder(4, 6, 0, Fraction(1, 4)), 30)
    mixed = [picture for picture in samples(SampleOrder(4, 6, 5, Fraction(1, 4)), 40) if picture < 6]
    assert mixed == plain


def test_an_epoch_is_as_much_longer() -> None:
    keys = config(batch_size=2, epochs=2, reg_share=0.2)
    assert total_steps(keys, alike(8).order(keys)) == 8
    assert total_steps(keys, alike(11, 3).order(keys)) == 10


@pytest.mark.parametrize("buckets", [False, True])
def test_reg_share_is_their_share_of_samples(buckets: bool) -> None:
    keys = config(batch_size=4, reg_share=0.25, prior_loss_weight=3.0, **(BUCKETS if buckets else {}))
    batches = batches_of(alike(12, 4), keys)
    rows = [batches.make(step, 0).texts for step in range(64)]
    of_prior = sum(int((row.states[:, 0, 0] > 8).sum()) for row in rows if row)
    assert of_prior == 64


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_prior_loss_weight_weighs_them_and_nothing_else(weight: float) -> None:
    keys = config(batch_size=4, reg_share=0.5, prior_loss_weight=weight)
    batch = batches_of(alike(12, 6), keys).make(0, 0)
    assert batch.texts is not None and batch.weights is not None
    of_prior = batch.texts.states[:, 0, 0] > 6
    assert of_prior.sum() == 2
    assert batch.weights.tolist() == [weight if prior else 1.0 for prior in of_prior]
    errors = batch.target.square().mean(dim=(1, 2, 3))
    assert torch.isclose(loss_of(torch.zeros_like(batch.target), batch), (errors * batch.weights).mean())


def test_the_weight_goes_together_with_min_snr() -> None:
    keys = {"batch_size": 4, "reg_share": 0.5, "min_snr_gamma": 1.0}
    plain, halved = (batches_of(alike(12, 6), config(**keys, prior_loss_weight=w)).make(0, 0) for w in (1.0, 0.5))
    assert plain.weights is not None and halved.weights is not None and plain.texts is not None
    factor = torch.where(plain.texts.states[:, 0, 0] > 6, 0.5, 1.0)
    assert torch.allclose(halved.weights, plain.weights * factor)


def test_a_size_that_only_the_prior_has_gets_batches_of_its_own() -> None:
    own = [(Size(16, 16), [latents(float(i))]) for i in range(4)]
    prior = [(Size(24, 16), [latents(float(i), (4, 6))]) for i in range(3)]
    batches = batches_of(encoded([*own, *prior], regularisation=3), config(**BUCKETS, batch_size=2, reg_share=0.5))
    shapes = [batches.make(step, 0).noisy.shape[-1] for step in range(20)]
    assert set(shapes) == {4, 6}


def learned(small: Bench, prior: list[Picture], **keys: object) -> np.ndarray:
    usual = {"max_train_steps": 3, "batch_size": 2, "caption_dropout": 0, "reg_share": 0.5}
    return flat(small.run(regularisation=prior, **{**usual, **keys}).adapter)


def test_regularisation_pictures_their_share_and_weight_change_what_is_learned(small: Bench) -> None:
    without, usual = learned(small, []), learned(small, PRIOR)
    assert not np.allclose(without, usual, atol=1e-7)
    assert not np.allclose(usual, learned(small, PRIOR, reg_share=0.25), atol=1e-7)
    assert not np.allclose(usual, learned(small, PRIOR, prior_loss_weight=0.2), atol=1e-7)
    assert not np.allclose(usual, learned(small, PRIOR[:1]), atol=1e-7)
    assert (without == learned(small, [], reg_share=0.25, prior_loss_weight=9)).all()  # they are for nobody


def test_they_are_flipped_but_not_augmented(small: Bench) -> None:
    sinks = MemorySinks()
    keys = {"augment_color_jitter": 0.5, "augment_variants": 3, "horizontal_flip": True, "max_train_steps": 1}
    small.run(sinks, regularisation=PRIOR, **keys)
    assert any("5 pictures (5 of 32 × 32, 2 of them for prior preservation) as 22 examples" in s for s in sinks.lines)


def test_a_checkpoint_of_other_regularisation_pictures_is_refused(small: Bench) -> None:
    sinks = MemorySinks()
    small.run(sinks, regularisation=PRIOR, max_train_steps=2)
    small.run(sinks, regularisation=PRIOR, max_train_steps=2)
    with pytest.raises(CheckpointMismatch):
        small.run(sinks, regularisation=PRIOR[:1], max_train_steps=2)
    # One picture more or less that only changed sides is another run too.
    with pytest.raises(CheckpointMismatch):
        small.run(sinks, data=[*pictures(), PRIOR[0]], regularisation=PRIOR[1:], max_train_steps=2)
