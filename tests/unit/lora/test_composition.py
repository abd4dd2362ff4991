"""Compositions are canonical, and all ways to apply one agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.lora.composition import Composition
from tests.unit.lora.adapters import TABLE, random_adapter

ADAPTERS = {digest: random_adapter(seed, rank=1 + seed) for seed, digest in enumerate("abcd")}
weights = st.floats(-2, 2, allow_nan=False).map(lambda w: round(w, 3))
entries = st.lists(st.tuples(st.sampled_from("abcd"), weights, weights), max_size=6)


@given(entries, st.randoms())
def test_order_does_not_matter(stack, random):
    shuffled = stack[:]
    random.shuffle(shuffled)
    assert Composition.of(shuffled) == Composition.of(stack)


@given(entries)
def test_it_is_its_own_canonical_form(stack):
    once = Composition.of(stack)
    assert Composition.of((p.digest, p.weight, p.text_encoder_weight) for p in once.parts) == once
    assert all(p.weight or p.text_encoder_weight for p in once.parts)
    assert list(once.digests) == sorted(set(once.digests))


def test_duplicates_add_up_and_cancelled_ones_vanish():
    assert Composition.of([("a", 0.5, 0.5), ("a", 0.25, 0.0)]).parts[0].weight == 0.75
    assert Composition.of([("a", 0.5, 0.5), ("a", -0.5, -0.5)]) == Composition()


@given(entries)
def test_the_concatenated_factors_apply_the_same_change(stack):
    composition = Composition.of(stack)
    for layer in composition.layers(ADAPTERS):
        down, up = composition.rank_concatenated(ADAPTERS, layer)
        flat = up.reshape(up.shape[0], -1) @ down.reshape(down.shape[0], -1)
        np.testing.assert_allclose(flat.reshape(TABLE[layer]), composition.delta(ADAPTERS, layer), rtol=1e-4, atol=1e-4)


@given(entries, entries)
def test_changes_of_two_stacks_add_up(first, second):
    both = Composition.of([*first, *second])
    parts = [Composition.of(first), Composition.of(second)]
    for layer in TABLE:
        total = np.zeros(TABLE[layer], np.float32)
        for part in parts:
            if layer in part.layers(ADAPTERS):
                total = total + part.delta(ADAPTERS, layer)
        expected = both.delta(ADAPTERS, layer) if layer in both.layers(ADAPTERS) else np.zeros_like(total)
        np.testing.assert_allclose(total, expected, rtol=1e-3, atol=2e-3)


def test_the_text_encoder_has_its_own_weight():
    composition = Composition.of([("a", 0.0, 1.0)])
    assert composition.layers(ADAPTERS) == ["text_encoder.text_model.encoder.layers.0.self_attn.q_proj"]


def test_a_layer_that_nothing_changes_is_an_error():
    with pytest.raises(KeyError):
        Composition().delta(ADAPTERS, next(iter(TABLE)))
