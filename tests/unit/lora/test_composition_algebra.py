"""Compositions are the free vector space over adapters: sums, zeros, inverses and multiples, for every kind of module.

Weights here are eighths, which floats add without rounding, so that laws hold exactly and not nearly.
"""

from __future__ import annotations

import random as stdlib_random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terroir.lora.adapter import Adapter, Array, LoraModule
from terroir.lora.composition import Composition
from tests.unit.lora.adapters import TABLE, random_adapter
from tests.unit.lora.lycoris_adapters import lycoris_adapter, mixed_adapter

Entry = tuple[str, float, float]
unhurried = settings(deadline=None)  # times vary with what else the machine does
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
UNET = tuple(layer for layer in TABLE if layer.startswith("unet."))
BASE = {layer: np.random.default_rng(7).standard_normal(shape, np.float32) for layer, shape in TABLE.items()}


def doras(seed: int) -> Adapter:
    """The same factors with lengths."""
    lengths = np.random.default_rng(seed)
    return Adapter(
        {
            layer: replace(module, magnitude=lengths.uniform(0.5, 2, TABLE[layer][0]).astype(np.float32))
            for layer, module in random_adapter(seed).modules.items()
            if isinstance(module, LoraModule)
        }
    )


ADAPTERS = {
    "lora": random_adapter(1), "wide": random_adapter(2, rank=5, layers=UNET[:2]), "dora": doras(3),
    "loha": lycoris_adapter(4, "loha tucker", alpha=0.25), "lokr": lycoris_adapter(5, "lokr small whole", alpha=0.5),
    "mixed": mixed_adapter(6, ("lora", "loha plain", "lokr whole"), alpha=0.25),
}  # fmt: skip
weights = st.integers(-16, 16).map(lambda eighths: eighths / 8)
stacks = st.lists(st.tuples(st.sampled_from(sorted(ADAPTERS)), weights, weights), max_size=7)


def change(composition: Composition, layer: str) -> Array:
    """Zero where nothing changes the layer."""
    if layer not in composition.layers(ADAPTERS):
        return np.zeros(TABLE[layer], np.float32)
    return composition.delta(ADAPTERS, layer, BASE[layer])


def times(factor: float, stack: Sequence[Entry]) -> list[Entry]:
    return [(digest, factor * weight, factor * text) for digest, weight, text in stack]


def entries_of(composition: Composition) -> list[Entry]:
    return [(part.digest, part.weight, part.text_encoder_weight) for part in composition.parts]


@unhurried
@given(stacks, st.integers())
def test_any_order_is_the_same_key_and_the_same_bits(stack: list[Entry], seed: int) -> None:
    shuffled = stack[:]
    stdlib_random.Random(seed).shuffle(shuffled)
    one, other = Composition.of(stack), Composition.of(shuffled)
    assert (one, hash(one)) == (other, hash(other))
    assert all(np.array_equal(change(one, layer), change(other, layer)) for layer in TABLE)


@unhurried
@given(stacks, stacks, stacks)
def test_adding_up_is_associative_and_the_empty_one_adds_nothing(
    first: list[Entry], second: list[Entry], third: list[Entry]
) -> None:
    whole = Composition.of([*first, *second, *third])
    assert Composition.of([*entries_of(Composition.of([*first, *second])), *third]) == whole
    assert Composition.of([*first, *entries_of(Composition.of([*second, *third]))]) == whole
    assert Composition.of([*first, *second, *third, *entries_of(Composition())]) == whole


@unhurried
@given(stacks)
def test_every_stack_has_an_inverse(stack: list[Entry]) -> None:
    assert Composition.of([*stack, *times(-1, stack)]) == Composition()
    opposite = Composition.of(times(-1, stack))
    assert all(np.array_equal(change(opposite, layer), -change(Composition.of(stack), layer)) for layer in TABLE)


@unhurried
@given(stacks, st.integers(1, 4))
def test_the_same_stack_n_times_is_n_times_the_stack(stack: list[Entry], count: int) -> None:
    assert Composition.of(stack * count) == Composition.of(times(count, stack))


@unhurried
@given(stacks, stacks)
def test_the_change_of_a_sum_is_the_sum_of_the_changes(first: list[Entry], second: list[Entry]) -> None:
    both = Composition.of([*first, *second])
    for layer in TABLE:
        total = change(Composition.of(first), layer) + change(Composition.of(second), layer)
        np.testing.assert_allclose(change(both, layer), total, rtol=1e-4, atol=2e-3)


@unhurried
@given(stacks, st.sampled_from(sorted(ADAPTERS)))
def test_a_zero_weight_is_as_if_the_adapter_were_not_named(stack: list[Entry], digest: str) -> None:
    for zero in (0.0, -0.0):
        assert Composition.of([*stack, (digest, zero, zero)]) == Composition.of(stack)
    named = {part.digest for part in Composition.of(stack).parts}
    assert named <= {digest for digest, weight, text in stack if weight or text}


@unhurried
@given(stacks, weights)
def test_the_text_encoders_weight_never_shows_in_the_denoiser_nor_the_other_way_round(
    stack: list[Entry], other: float
) -> None:
    here = Composition.of(stack)
    text_changed = Composition.of([(digest, weight, other) for digest, weight, _ in stack])
    unet_changed = Composition.of([(digest, other, text) for digest, _, text in stack])
    assert all(np.array_equal(change(here, layer), change(text_changed, layer)) for layer in UNET)
    assert np.array_equal(change(here, TEXT), change(unet_changed, TEXT))


@unhurried
@given(stacks)
def test_the_layers_that_it_names_are_those_that_it_may_change(stack: list[Entry]) -> None:
    composition = Composition.of(stack)
    layers = composition.layers(ADAPTERS)
    assert layers == sorted(set(layers))
    for layer in TABLE:
        touching = [
            part for part in composition.parts if part.weight_on(layer) and layer in ADAPTERS[part.digest].modules
        ]
        assert (layer in layers) == bool(touching)
        if not touching:
            with pytest.raises(KeyError):
                composition.delta(ADAPTERS, layer, BASE[layer])


@unhurried
@given(stacks, stacks)
def test_compositions_are_equal_exactly_when_their_summed_weights_are(first: list[Entry], second: list[Entry]) -> None:
    """So a cache by composition never serves one request's weights to another."""

    def totals(stack: list[Entry]) -> dict[str, tuple[float, float]]:
        names = {digest for digest, _, _ in stack}
        sums = {
            name: (sum(w for d, w, _ in stack if d == name), sum(t for d, _, t in stack if d == name)) for name in names
        }
        return {name: pair for name, pair in sums.items() if pair != (0, 0)}

    one, other = Composition.of(first), Composition.of(second)
    assert (one == other) == (totals(first) == totals(second))
    assert {one: "kept"}.get(other) == ("kept" if totals(first) == totals(second) else None)


def test_weights_that_differ_in_the_last_bit_are_different_keys() -> None:
    nearly = float(np.nextafter(0.5, 1))
    assert Composition.of([("lora", 0.5, 0.5)]) != Composition.of([("lora", nearly, 0.5)])
    assert Composition.of([("lora", 1, 1)]) == Composition.of([("lora", 1.0, 1.0)])


@unhurried
@given(stacks)
def test_a_pair_of_factors_applies_the_same_change_or_is_refused(stack: list[Entry]) -> None:
    composition = Composition.of(stack)
    for layer in composition.layers(ADAPTERS):
        worn = [p.digest for p in composition.parts if p.weight_on(layer) and layer in ADAPTERS[p.digest].modules]
        if all(ADAPTERS[digest].modules[layer].low_rank is not None for digest in worn):
            down, up = composition.rank_concatenated(ADAPTERS, layer)
            flat = up.reshape(up.shape[0], -1) @ down.reshape(down.shape[0], -1)
            np.testing.assert_allclose(flat.reshape(TABLE[layer]), change(composition, layer), rtol=1e-4, atol=2e-3)
        else:
            with pytest.raises(ValueError, match="no low-rank form"):
                composition.rank_concatenated(ADAPTERS, layer)
