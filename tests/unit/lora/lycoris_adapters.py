"""LoHa and LoKr adapters for tests: random factors over the small table of layers, in every shape that is published."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from terroir.lora.adapter import Adapter, Array, Module
from terroir.lora.loha import HadamardFactor, LohaModule
from terroir.lora.lokr import KroneckerFactor, LokrModule
from tests.unit.lora.adapters import TABLE, random_adapter

LOHA_FORMS = ("plain", "tucker")
LOKR_FORMS = ("whole", "small whole", "both products", "tucker", "large whole")
FORMS = tuple(f"loha {form}" for form in LOHA_FORMS) + tuple(f"lokr {form}" for form in LOKR_FORMS)


def random_module(rng: np.random.Generator, form: str, shape: tuple[int, ...], rank: int, alpha: float) -> Module:
    """A module of a form for a weight's shape; matrices have no Tucker form and take the plain one."""
    kind, _, how = form.partition(" ")
    if how == "tucker" and len(shape) == 2:
        how = "plain" if kind == "loha" else "small whole"
    if kind == "loha":
        first, second = (HadamardFactor(*_product(rng, shape, rank, tucker=how == "tucker")) for _ in range(2))
        return LohaModule(first, second, alpha, shape)
    small, large = (2, 2), (shape[0] // 2, shape[1] // 2, *shape[2:])
    if how in ("whole", "small whole", "tucker"):
        first = KroneckerFactor(_draw(rng, *small))
    else:
        first = KroneckerFactor(None, *_product(rng, small, rank, tucker=False))
    if how in ("whole", "large whole"):
        second = KroneckerFactor(_draw(rng, *large))
    else:
        second = KroneckerFactor(None, *_product(rng, large, rank, tucker=how == "tucker"))
    return LokrModule(first, second, alpha, shape)


def lycoris_adapter(seed: int, form: str, rank: int = 2, alpha: float = 3.0) -> Adapter:
    """One form for all layers; values that half precision holds."""
    rng = np.random.default_rng(seed)
    return Adapter({layer: random_module(rng, form, shape, rank, alpha) for layer, shape in TABLE.items()})


def mixed_adapter(seed: int, forms: tuple[str, ...], rank: int = 2, alpha: float = 3.0) -> Adapter:
    """A form for each layer in turn, `lora` too."""
    rng, lora = np.random.default_rng(seed), random_adapter(seed, rank, alpha)
    return Adapter(
        {
            layer: lora.modules[layer] if form == "lora" else random_module(rng, form, shape, rank, alpha)
            for (layer, shape), form in zip(TABLE.items(), forms * len(TABLE), strict=False)
        }
    )


def _product(
    rng: np.random.Generator, shape: tuple[int, ...], rank: int, *, tucker: bool
) -> tuple[Array, Array, Array | None]:
    if tucker:
        return _draw(rng, rank, shape[0]), _draw(rng, rank, shape[1]), _draw(rng, rank, rank, *shape[2:])
    return _draw(rng, shape[0], rank), _draw(rng, rank, math.prod(shape[1:])), None


def _draw(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float16).astype(np.float32)


lycoris_adapters = st.builds(
    mixed_adapter,
    seed=st.integers(0, 2**32 - 1),
    forms=st.lists(st.sampled_from((*FORMS, "lora")), min_size=1, max_size=len(TABLE)).map(tuple),
    rank=st.integers(1, 4),
    alpha=st.sampled_from((0.5, 1.0, 4.0, 16.0)),
)
