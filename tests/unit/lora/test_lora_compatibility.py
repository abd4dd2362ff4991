"""Comparing whole adapters: against full deltas, and in cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.compatibility import (
    HIGH_FROM,
    MEDIUM_FROM,
    Level,
    Overlap,
    compare,
    compare_pairs,
    interference,
    level_of,
    suggested_weights,
)
from tests.unit.lora.adapters import TABLE, adapters, random_adapter


def flat(adapter: Adapter) -> np.ndarray:
    """The change of every layer of the table, end to end."""
    return np.concatenate(
        [
            (adapter.modules[layer].delta() if layer in adapter.modules else np.zeros(shape)).ravel().astype(float)
            for layer, shape in TABLE.items()
        ]
    )


def turned(adapter: Adapter, factor: float) -> Adapter:
    """The change multiplied by a factor."""
    return Adapter({k: LoraModule(m.down, m.up, m.alpha * factor) for k, m in adapter.modules.items()})


@given(adapters, adapters)
def test_cosine_norms_and_coverage_are_those_of_the_full_changes(first, second):
    found = compare(first, second)
    one, other = flat(first), flat(second)
    assert found.first_norm == pytest.approx(np.linalg.norm(one), rel=1e-5)
    assert found.second_norm == pytest.approx(np.linalg.norm(other), rel=1e-5)
    assert found.cosine == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other), abs=1e-5)
    assert found.shared_layers == len(set(first.modules) & set(second.modules))
    assert found.layers == len(set(first.modules) | set(second.modules))
    assert max(found.input_overlap, found.output_overlap) <= 1


@given(adapters, adapters)
def test_the_other_order_is_the_same_pair_reversed(first, second):
    ours, theirs = compare(first, second).reversed, compare(second, first)
    for name in ("inner", "first_norm", "input_overlap", "output_overlap", "layers"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-9, abs=1e-9)


@given(adapters, st.sampled_from((-2.0, 0.5, 1.0)))
def test_an_adapter_beside_a_multiple_of_itself_overlaps_wholly(adapter, factor):
    found = compare(adapter, turned(adapter, factor))
    assert found.cosine == pytest.approx(np.sign(factor))
    assert (found.input_overlap, found.output_overlap) == pytest.approx((1, 1))


def test_adapters_of_different_layers_have_nothing_in_common():
    first, second = (random_adapter(1, layers=(layer,)) for layer in list(TABLE)[:2])
    found = compare(first, second)
    assert (found.cosine, found.input_overlap, found.output_overlap) == (0, 0, 0)
    assert (found.shared_layers, found.layers) == (0, 2)


def test_a_change_of_nothing_is_compared_without_a_division_by_zero():
    found = compare(random_adapter(1), turned(random_adapter(2), 0.0))
    assert (found.cosine, found.second_norm, found.input_overlap) == (0, 0, 0)
    assert compare(Adapter({}), Adapter({})).layers == 0


def test_of_a_dora_the_low_rank_change_is_compared():
    """Its magnitude rescales rows of base + change, so without the base's weights nothing can be said of it."""
    first, second = random_adapter(1), random_adapter(2)
    rescaled = Adapter(
        {
            layer: LoraModule(module.down, module.up, module.alpha, np.full(module.up.shape[0], 7.0, np.float32))
            for layer, module in first.modules.items()
        }
    )
    assert compare(rescaled, second) == compare(first, second)


def test_many_pairs_at_once_give_what_each_pair_gives_alone():
    three = [random_adapter(seed, rank=seed + 1) for seed in range(3)]
    found = compare_pairs(three, [(0, 1), (2, 1)])
    assert found == {(0, 1): compare(three[0], three[1]), (2, 1): compare(three[2], three[1])}


@given(st.lists(adapters, min_size=2, max_size=4))
def test_suggested_weights_change_the_base_as_much_as_the_strongest_alone(chosen):
    changes = [flat(adapter) for adapter in chosen]
    gram = np.array([[one @ other for other in changes] for one in changes])
    weights = suggested_weights(gram)
    strongest = max(np.linalg.norm(change) for change in changes)
    together = np.linalg.norm(sum(w * change for w, change in zip(weights, changes, strict=True)))
    assert together == pytest.approx(strongest, rel=1e-6) if weights[0] < 1 else together <= strongest * (1 + 1e-9)


@pytest.mark.parametrize(
    ("gram", "expected"),
    [
        ([[1, 0], [0, 1]], 0.5**0.5),
        ([[1, 1], [1, 1]], 0.5),
        ([[1, -1], [-1, 1]], 1.0),
        ([[0, 0], [0, 0]], 1.0),
        ([[4, 0], [0, 0]], 1.0),
        (np.eye(4), 0.5),
    ],
)
def test_suggested_weights_of_known_stacks(gram, expected):
    assert suggested_weights(np.array(gram, dtype=float)) == pytest.approx(expected)


def pair_of(cosine: float, strength: float = 1.0) -> Overlap:
    """Two changes by their cosine and the second's norm, the first's being 1."""
    return Overlap(cosine * strength, 1.0, strength, 0.0, 0.0, 1, 1)


def test_the_same_change_costs_nothing_and_its_opposite_everything():
    adapter = random_adapter(1)
    assert interference(compare(adapter, adapter)) < 0.01
    assert interference(compare(adapter, turned(adapter, -1.0))) > 0.99
    assert interference(compare(adapter, turned(adapter, 0.0))) == 0


@given(st.floats(-1, 1), st.floats(1e-3, 1e3))
def test_interference_is_a_share_and_knows_no_order(cosine, strength):
    pair = pair_of(cosine, strength)
    assert 0 <= interference(pair) <= 1
    assert interference(pair) == interference(pair.reversed)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_the_more_alike_two_changes_are_the_less_they_interfere(one, other):
    low, high = sorted((one, other))
    assert interference(pair_of(high)) <= interference(pair_of(low))


def test_levels_follow_the_score():
    assert [level_of(score) for score in (0.0, MEDIUM_FROM, HIGH_FROM, 1.0)] == [
        Level.LOW, Level.MEDIUM, Level.HIGH, Level.HIGH,
    ]  # fmt: skip
