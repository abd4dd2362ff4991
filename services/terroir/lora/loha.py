"""LoHa: a change that is the elementwise product of two low-rank ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from terroir.lora.adapter import Array


@dataclass(frozen=True, eq=False)
class HadamardFactor:
    """One of the two: `a @ b`, or with a Tucker core `einsum("ijhw,ip,jq->pqhw", core, a, b)` (LyCORIS `use_tucker`).

    Without a core a is `[out, r]` and b `[r, in * kh * kw]`; with one `[r, out]`, `[r, in]` and core `[r, r, kh, kw]`.
    """

    a: Array
    b: Array
    core: Array | None = None

    def product(self) -> Array:
        """`[out, in * kh * kw]`."""
        if self.core is None:
            return self.a @ self.b
        rank, out = self.a.shape
        read = np.tensordot(self.b, self.core, axes=(0, 1))  # [in, r, kh, kw]: the small one first
        return np.asarray(self.a.T @ read.swapaxes(0, 1).reshape(rank, -1)).reshape(out, -1)


@dataclass(frozen=True, eq=False)
class LohaModule:
    """`alpha / r * (w1_a @ w1_b) ∘ (w2_a @ w2_b)` (Hyeon-Woo et al., arXiv 2108.06098; LyCORIS, arXiv 2309.14859).

    Its rank may reach r², so it has no low-rank form that would be smaller. LyCORIS scales once when it trains, as
    A1111 and ComfyUI do when they load; its own `get_diff_weight` scales twice, which is not followed.
    """

    kind: ClassVar[str] = "loha"

    first: HadamardFactor
    second: HadamardFactor
    alpha: float
    shape: tuple[int, ...]
    """The layer's weight: `[out, in]` or `[out, in, kh, kw]`."""

    @property
    def rank(self) -> int:
        """Inner dimension r of both factors."""
        return int(self.first.b.shape[0])

    @property
    def scale(self) -> float:
        """Intrinsic scale, alpha / r."""
        return self.alpha / self.rank

    @property
    def needs_base(self) -> bool:
        """Never."""
        return False

    @property
    def low_rank(self) -> tuple[Array, Array] | None:
        """None."""
        return None

    @property
    def tensors(self) -> Mapping[str, Array]:
        """Names of LyCORIS."""
        found: dict[str, Array] = {}
        for number, factor in ((1, self.first), (2, self.second)):
            found |= {f"hada_w{number}_a": factor.a, f"hada_w{number}_b": factor.b}
            if factor.core is not None:
                found[f"hada_t{number}"] = factor.core
        return found

    def delta(self) -> Array:
        """The change at weight 1, in the layer's own shape."""
        product = self.first.product() * self.second.product()
        return np.asarray(self.scale * product, dtype=np.float32).reshape(self.shape)

    def change_of(self, base: Array) -> Array:
        """`delta`, whatever the base."""
        del base
        return self.delta()
