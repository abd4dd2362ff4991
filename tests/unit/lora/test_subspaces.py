"""Figures from rank-sized products equal those of the full deltas, which they never form."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.lora.adapter import LoraModule
from terroir.lora.subspaces import (
    energy_overlap,
    frobenius_norm,
    inner_product,
    principal_cosines,
    spectrum,
)

SHAPES = ((8, 6), (5, 9), (4, 3, 3, 3), (6, 4, 1, 1), (3, 2, 1, 3))


def random_module(shape: tuple[int, ...], rank: int, seed: int, kind: str = "plain") -> LoraModule:
    rng = np.random.default_rng(seed)
    down = rng.standard_normal((rank, *shape[1:])).astype(np.float32)
    up = rng.standard_normal((shape[0], rank, *(1 for _ in shape[2:]))).astype(np.float32)
    if kind == "deficient":
        down[rank // 2 :] = down[0]
        up[:, rank // 2 :] = up[:, :1]
    elif kind == "zero":
        up[:] = 0
    return LoraModule(down, up, alpha=float(rng.uniform(0.5, 4)))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[LoraModule, LoraModule]:
    """Two modules of one layer; ranks up to beyond the layer's own sides."""
    shape = draw(st.sampled_from(SHAPES))
    kinds = st.sampled_from(("plain", "plain", "deficient", "zero"))
    first, second = (
        random_module(shape, draw(st.integers(1, 12)), draw(st.integers(0, 2**32 - 1)), draw(kinds)) for _ in range(2)
    )
    return first, first if draw(st.integers(0, 5)) == 0 else second


def full(module: LoraModule) -> np.ndarray:
    delta = module.delta().astype(np.float64)
    return delta.reshape(delta.shape[0], -1)


@given(pairs())
def test_norms_and_inner_products_are_those_of_the_full_deltas(pair):
    first, second = pair
    scale = np.linalg.norm(full(first)) * np.linalg.norm(full(second)) + 1e-9
    assert inner_product(first, second) == pytest.approx(float(np.sum(full(first) * full(second))), abs=1e-5 * scale)
    assert inner_product(first, second) == pytest.approx(inner_product(second, first), abs=1e-9 * scale)
    assert frobenius_norm(first) == pytest.approx(float(np.linalg.norm(full(first))), rel=1e-5, abs=1e-9)


@given(pairs())
def test_the_spectrum_rebuilds_the_delta_from_orthonormal_sides(pair):
    found = spectrum(pair[0])
    delta = full(pair[0])
    size = np.linalg.norm(delta) + 1e-9
    np.testing.assert_allclose(found.left @ np.diag(found.values) @ found.right.T, delta, atol=1e-5 * size)
    for side in (found.left, found.right):
        np.testing.assert_allclose(side.T @ side, np.eye(len(found.values)), atol=1e-9)
    assert list(found.values) == sorted(found.values, reverse=True)
    assert len(found.values) == np.linalg.matrix_rank(delta, tol=1e-5 * size)
    assert found.energy == pytest.approx(size**2, rel=1e-4, abs=1e-9)
    assert found.shares.sum() == pytest.approx(1.0 if found.values.size else 0.0)


@given(pairs())
def test_overlaps_are_correlations_of_the_full_gram_matrices(pair):
    first, second = (spectrum(module) for module in pair)
    for side in ("right", "left"):
        grams = [full(m).T @ full(m) if side == "right" else full(m) @ full(m).T for m in pair]
        n = len(grams[0])
        if min(np.trace(gram) for gram in grams) < 1e-9:
            naive = 0.0
        else:
            one, other = ((gram / np.trace(gram) - np.eye(n) / n).ravel() for gram in grams)
            naive = float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
        ours = energy_overlap(getattr(first, side), first.shares, getattr(second, side), second.shares)
        assert ours == pytest.approx(naive, abs=1e-3)
        assert -1 <= ours <= 1


def test_random_directions_overlap_by_no_more_than_chance():
    """Without the correction a layer of 40 channels and rank 8 would report an overlap of 0.2 for strangers."""
    rng = np.random.default_rng(1)
    even = np.full(8, 1 / 8)
    sides = [np.linalg.qr(rng.standard_normal((40, 8)))[0] for _ in range(200)]
    found = [energy_overlap(one, even, other, even) for one, other in zip(sides[::2], sides[1::2], strict=True)]
    assert abs(np.mean(found)) < 0.01


def test_a_change_that_uses_every_direction_alike_prefers_none():
    everything = np.eye(4)
    assert energy_overlap(everything, np.full(4, 0.25), everything, np.full(4, 0.25)) == 0


@given(pairs())
def test_principal_angles_are_those_between_the_deltas_own_spaces(pair):
    first, second = (spectrum(module) for module in pair)
    cosines = principal_cosines(first.right, second.right)
    assert len(cosines) == min(len(first.values), len(second.values))
    assert all((cosines >= 0) & (cosines <= 1))
    # Squared cosines of all angles sum up to the trace of the product of both projections.
    projections = [np.linalg.pinv(full(m), rcond=1e-5) @ full(m) for m in pair]
    assert np.sum(cosines**2) == pytest.approx(float(np.trace(projections[0] @ projections[1])), abs=1e-3)


def test_a_factor_beside_itself_meets_every_direction():
    module = random_module((8, 6), 3, 1)
    found = spectrum(module)
    np.testing.assert_allclose(principal_cosines(found.left, found.left), 1, atol=1e-9)
    assert energy_overlap(found.left, found.shares, found.left, found.shares) == pytest.approx(1)


def test_idle_directions_of_a_large_rank_do_not_count():
    """Two changes that read one common strong direction and one weak other each overlap almost wholly."""
    strong, weak = np.eye(6, dtype=np.float32)[:1], 1e-3 * np.eye(6, dtype=np.float32)
    up = np.eye(4, 2, dtype=np.float32)
    first = LoraModule(np.concatenate([strong, weak[1:2]]), up, 2.0)
    second = LoraModule(np.concatenate([strong, weak[2:3]]), up, 2.0)
    one, other = spectrum(first), spectrum(second)
    assert list(np.round(principal_cosines(one.right, other.right), 6)) == [1, 0]
    assert energy_overlap(one.right, one.shares, other.right, other.shares) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shape", [(2048, 2048), (512, 512, 3, 3)])
def test_memory_stays_far_below_one_full_delta(shape):
    first, second = random_module(shape, 4, 1), random_module(shape, 4, 2)
    delta_bytes = 4 * int(np.prod(shape))
    tracemalloc.start()
    try:
        one, other = spectrum(first), spectrum(second)
        principal_cosines(one.right, other.right)
        energy_overlap(one.left, one.shares, other.left, other.shares)
        inner_product(first, second)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < delta_bytes / 8, f"{peak} bytes at the peak; a full delta takes {delta_bytes}"
