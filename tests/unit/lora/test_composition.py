"""Compositions are canonical, and all ways to apply one agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.lora.adapter import Adapter, LoraModule
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


Q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "unet.down_blocks.0.resnets.0.conv1"


def dora(layer: str, seed: int = 0) -> LoraModule:
    module = random_adapter(seed).modules[layer]
    lengths = np.random.default_rng(seed).uniform(0.5, 2, module.up.shape[0]).astype(np.float32)
    return LoraModule(module.down, module.up, module.alpha, lengths)


@pytest.mark.parametrize("layer", [Q, CONV])
def test_a_dora_gives_every_row_its_length_and_the_direction_of_the_changed_weight(layer):
    module, base = dora(layer), np.random.default_rng(9).standard_normal(TABLE[layer], np.float32)
    changed = (base + module.change_of(base)).reshape(TABLE[layer][0], -1)
    np.testing.assert_allclose(np.linalg.norm(changed, axis=1), module.magnitude, rtol=1e-5)
    plain = (base + module.delta()).reshape(TABLE[layer][0], -1)
    cosines = np.sum(changed * plain, axis=1) / np.linalg.norm(changed, axis=1) / np.linalg.norm(plain, axis=1)
    np.testing.assert_allclose(cosines, 1, rtol=1e-5)


@given(st.floats(-2, 2).map(lambda w: round(w, 3)), st.floats(-2, 2).map(lambda w: round(w, 3)))
def test_weights_of_doras_are_linear_and_order_does_not_matter(first, second):
    """Each is a change of the pristine base, so that stacks add up; PEFT's own merge depends on the order."""
    adapters = {"a": Adapter({Q: dora(Q, 1)}), "b": Adapter({Q: dora(Q, 2)}), "c": random_adapter(3)}
    base = np.random.default_rng(9).standard_normal(TABLE[Q], np.float32)
    stack = Composition.of([("b", second, 0), ("c", 1.0, 0), ("a", first, 0)])
    expected = sum(
        weight * adapters[digest].modules[Q].change_of(base)
        for digest, weight in (("a", first), ("b", second), ("c", 1.0))
    )
    np.testing.assert_allclose(stack.delta(adapters, Q, base), expected, rtol=1e-4, atol=1e-4)


def test_a_dora_without_its_base_or_as_a_pair_of_factors_is_an_error():
    adapters = {"a": Adapter({Q: dora(Q)})}
    composition = Composition.of([("a", 1.0, 1.0)])
    with pytest.raises(ValueError, match="base weight"):
        composition.delta(adapters, Q)
    with pytest.raises(ValueError, match="low-rank"):
        composition.rank_concatenated(adapters, Q)


def test_a_row_of_zeros_does_not_divide_by_zero():
    module = LoraModule(np.zeros((1, 8), np.float32), np.zeros((8, 1), np.float32), 1.0, np.ones(8, np.float32))
    assert np.isfinite(module.change_of(np.zeros((8, 8), np.float32))).all()


def test_the_second_text_encoder_has_the_text_encoders_weight():
    part = Composition.of([("a", 0.25, 0.75)]).parts[0]
    assert part.weight_on("text_encoder_2.text_model.encoder.layers.0.mlp.fc1") == 0.75


def test_a_magnitude_changes_the_tensor_digest():
    plain = Adapter({Q: random_adapter(0).modules[Q]})
    assert Adapter({Q: dora(Q)}).tensor_digest() not in (
        plain.tensor_digest(),
        Adapter({Q: dora(Q, 1)}).tensor_digest(),
    )
