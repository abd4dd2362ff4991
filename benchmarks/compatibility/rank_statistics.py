"""Spearman's rank correlation and what it is worth, for pairs that share adapters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


def ranks(values: Sequence[float]) -> Numbers:
    """Ranks from 1, ties share their mean."""
    found = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(found, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray(((2 * ends - counts + 1) / 2)[inverse], dtype=np.float64)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation, -1 … 1; 0 where one side is constant."""
    one, other = ranks(first) - (len(first) + 1) / 2, ranks(second) - (len(second) + 1) / 2
    norms = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / norms if norms else 0.0


def permutation_p(first: Sequence[float], second: Sequence[float], rounds: int = 20_000, seed: int = 0) -> float:
    """Two-sided p-value of `spearman` if pairs were independent: how often a shuffled side correlates as much."""
    rng = np.random.default_rng(seed)
    one, other = ranks(first), ranks(second)
    one, other = one - one.mean(), other - other.mean()
    shuffled = rng.permuted(np.tile(one, (rounds, 1)), axis=1) @ other
    return float((1 + np.sum(np.abs(shuffled) >= abs(one @ other) - 1e-9)) / (1 + rounds))


def mantel_p(
    first: Mapping[tuple[str, str], float],
    second: Mapping[tuple[str, str], float],
    rounds: int = 20_000,
    seed: int = 0,
) -> float:
    """The same by shuffling the adapters' names instead of pairs (Mantel, Cancer Research 27, 1967).

    Pairs that share an adapter are not independent, so this is the honest one of both. Names change places with those
    of as many pairs, which must lead to the same pairs again: raises ValueError where it does not.
    """
    degrees = Counter(name for pair in first for name in pair)
    names = sorted(degrees, key=lambda name: (degrees[name], name))
    at = {name: number for number, name in enumerate(names)}
    groups = [np.flatnonzero([degrees[name] == degree for name in names]) for degree in sorted(set(degrees.values()))]
    rows, columns = np.array([[at[a], at[b]] for a, b in first]).T
    table = np.full((len(names), len(names)), np.nan)
    table[rows, columns] = table[columns, rows] = ranks(list(first.values()))
    one, other = table[rows, columns], ranks([second[pair] for pair in first])
    other = other - other.mean()
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(rounds):
        order = np.concatenate([rng.permutation(group) for group in groups])
        shuffled = table[order[rows], order[columns]]
        if np.isnan(shuffled).any():
            raise ValueError("shuffled names lead to pairs that were not measured; pass every pair of the adapters")
        hits += abs(shuffled @ other) >= abs(one @ other) - 1e-9
    return (1 + hits) / (1 + rounds)
