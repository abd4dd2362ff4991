"""Modules of LoHa and LoKr from the factors that LyCORIS and sd-scripts' loaders name.

Names and shapes as lycoris/modules/loha.py and lokr.py save them; the rules of strength stand with the modules. Nothing
is multiplied here: a file of kilobytes can name factors whose product takes gigabytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from terroir.lora.adapter import Array, Module
from terroir.lora.errors import IncompleteModule, LoraError, NotFinite, RankTooLarge, UnsupportedAdapter, WrongShape
from terroir.lora.formats.reading import Factors
from terroir.lora.formats.strength import alpha_of, unused_alpha_of
from terroir.lora.loha import HadamardFactor, LohaModule
from terroir.lora.lokr import KroneckerFactor, LokrModule

_LARGEST: Final = float(np.finfo(np.float32).max)


def module_of(layer: str, factors: Factors, weight: tuple[int, ...], max_rank: int) -> Module:
    """Check a layer's factors against its weight.

    Raises UnsupportedAdapter, IncompleteModule, WrongShape, RankTooLarge or NotFinite.
    """
    parts = {name: np.ascontiguousarray(tensor) for name, tensor in factors.lycoris.items()}
    kinds = {"LoHa" if name.startswith("hada_") else "LoKr" for name in parts}
    if len(kinds) > 1 or any(part is not None for part in (factors.down, factors.up, factors.mid)):
        found = sorted(kinds | ({"LoRA"} if factors.down is not None or factors.up is not None else set()))
        raise UnsupportedAdapter(
            f"{layer} has factors of {' and '.join(found)}, and programs differ in which they take; keep one kind",
            key=layer,
        )
    if factors.magnitude is not None:
        raise UnsupportedAdapter(
            f"{layer}: a {kinds.pop()} with DoRA magnitudes (dora_scale) is not read; train it without "
            "weight decomposition (wd=False, dora_wd=False), or turn it into a LoRA first (LyCORIS extract_locon)",
            key=layer,
        )
    read = _loha if "LoHa" in kinds else _lokr
    return read(layer, factors, parts, weight, max_rank)


def _loha(layer: str, factors: Factors, parts: Mapping[str, Array], weight: tuple[int, ...], max_rank: int) -> Module:
    _ensure_complete(layer, parts, ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"))
    if ("hada_t1" in parts) != ("hada_t2" in parts):
        _ensure_complete(layer, parts, ("hada_t1", "hada_t2"))
    rank = _rank(layer, [parts["hada_w1_b"], parts["hada_w2_b"]], max_rank)
    for number in "12":
        core = parts.get(f"hada_t{number}")
        pair = parts[f"hada_w{number}_a"], parts[f"hada_w{number}_b"]
        if not _fits(pair, core, rank, weight):
            raise _wrong_shape(layer, parts, weight)
    first, second = (
        HadamardFactor(parts[f"hada_w{number}_a"], parts[f"hada_w{number}_b"], parts.get(f"hada_t{number}"))
        for number in (1, 2)
    )
    module = LohaModule(first, second, alpha_of(layer, factors, rank), weight)
    sums = rank * rank if first.core is None else rank**4
    _ensure_finite(layer, parts, sums, module.scale)
    return module


def _lokr(layer: str, factors: Factors, parts: Mapping[str, Array], weight: tuple[int, ...], max_rank: int) -> Module:
    first, second = (_kronecker(layer, parts, number) for number in (1, 2))
    products = [factor.b for factor in (first, second) if factor.b is not None]
    rank = _rank(layer, products, max_rank) if products else 0
    kernel = weight[2:]
    if first.whole is not None:
        small = first.whole.shape
    else:
        assert first.a is not None
        assert first.b is not None
        small = (*first.a.shape[:1], *first.b.shape[1:])
        if first.a.shape[1:] != (rank,):
            raise _wrong_shape(layer, parts, weight)
    if len(small) != 2 or 0 in small or weight[0] % small[0] or weight[1] % small[1]:
        raise _wrong_shape(layer, parts, weight)
    rest = (weight[0] // small[0], weight[1] // small[1], *kernel)
    if second.whole is not None:
        # 1 × 1 convolutions are stored with their window or without.
        fits = second.whole.shape == rest or (second.whole.shape == rest[:2] and math.prod(kernel) == 1)
        fits = fits or (not kernel and second.whole.shape == (*rest, 1, 1))
    else:
        assert second.a is not None
        assert second.b is not None
        fits = _fits((second.a, second.b), second.core, rank, rest)
    if not fits:
        raise _wrong_shape(layer, parts, weight)
    whole = not products
    alpha = unused_alpha_of(layer, factors) if whole else alpha_of(layer, factors, rank)
    module = LokrModule(first, second, alpha, weight)
    _ensure_finite(layer, parts, max(rank, 1) ** 3, module.scale)
    return module


def _kronecker(layer: str, parts: Mapping[str, Array], number: int) -> KroneckerFactor:
    name = f"lokr_w{number}"
    core = parts.get(f"lokr_t{number}")
    if name in parts:
        beside = [part for part in (f"{name}_a", f"{name}_b", f"lokr_t{number}") if part in parts]
        if beside:
            raise UnsupportedAdapter(
                f"{layer} has both {name} and {beside[0]}, and programs differ in which they take; keep one",
                key=layer,
            )
        return KroneckerFactor(parts[name])
    if f"{name}_a" not in parts and f"{name}_b" not in parts:
        _ensure_complete(layer, parts, (name,))
    _ensure_complete(layer, parts, (f"{name}_a", f"{name}_b"))
    return KroneckerFactor(None, parts[f"{name}_a"], parts[f"{name}_b"], core)


def _fits(pair: tuple[Array, Array], core: Array | None, rank: int, weight: tuple[int, ...]) -> bool:
    """Whether a product, through a Tucker core or not, has the weight's shape."""
    a, b = pair
    if core is None:
        return a.shape == (weight[0], rank) and b.shape == (rank, math.prod(weight[1:]))
    cored = len(weight) == 4 and core.shape == (rank, rank, *weight[2:])
    return cored and a.shape == (rank, weight[0]) and b.shape == (rank, weight[1])


def _rank(layer: str, rights: list[Array], max_rank: int) -> int:
    """The one inner dimension of all products, before anything is computed from it."""
    ranks = {int(right.shape[0]) if right.ndim else 0 for right in rights}
    rank = max(ranks)
    if rank > max_rank:
        raise RankTooLarge(f"{layer}: rank {rank} exceeds max_rank {max_rank}; retrain it with a lower rank", key=layer)
    if len(ranks) > 1 or rank < 1:
        raise WrongShape(
            f"{layer}: its factors have the ranks {sorted(ranks)}, so its strength is unknown; both need one rank of "
            "at least 1",
            key=layer,
        )
    return rank


def _ensure_complete(layer: str, parts: Mapping[str, Array], names: tuple[str, ...]) -> None:
    for name in names:
        if name not in parts:
            raise IncompleteModule(f"{layer} has no {name}; the file is incomplete: save it again", key=layer)


def _ensure_finite(layer: str, parts: Mapping[str, Array], sums: int, scale: float) -> None:
    """By a bound that costs nothing: at most `sums` products of one value of each factor are added up.

    Small values don't help: an infinite product on the way would stay infinite, or become NaN beside a zero.
    """
    bound = sums * max(abs(scale), 1) * math.prod(max(float(np.abs(part).max()), 1) for part in parts.values())
    if not bound <= _LARGEST:
        raise NotFinite(f"{layer}: the product of its factors may exceed 32-bit floats; the file is damaged", key=layer)


def _wrong_shape(layer: str, parts: Mapping[str, Array], weight: tuple[int, ...]) -> LoraError:
    shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(parts.items()))
    return WrongShape(
        f"{layer}: factors {shapes[:300]} do not fit a weight of {list(weight)}; the adapter is for another base",
        key=layer,
    )
