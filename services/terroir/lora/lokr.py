"""LoKr: a change that is the Kronecker product of a small matrix and a larger, perhaps low-rank one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from terroir.lora.adapter import Array


@dataclass(frozen=True, eq=False)
class KroneckerFactor:
    """A whole tensor, or a product of two: exactly one of `whole` and the pair `a`, `b` is there.

    `whole [p, q]` or `[p, q, kh, kw]`; else `a [p, r] @ b [r, q * kh * kw]`, or with a Tucker core `[r, r, kh, kw]`
    `einsum("ijhw,ip,jq->pqhw", core, a, b)` of `a [r, p]` and `b [r, q]` (LyCORIS `use_tucker`).
    """

    whole: Array | None = None
    a: Array | None = None
    b: Array | None = None
    core: Array | None = None

    @property
    def rank(self) -> int | None:
        """Inner dimension r; None if whole."""
        return None if self.b is None else int(self.b.shape[0])

    def product(self, kernel: int) -> Array:
        """`[p, q, kernel]`, `kernel` being kh * kw."""
        if self.whole is not None:
            return self.whole.reshape(self.whole.shape[0], -1, kernel)
        assert self.a is not None
        assert self.b is not None
        if self.core is None:
            return (self.a @ self.b).reshape(self.a.shape[0], -1, kernel)
        read = np.tensordot(self.b, self.core, axes=(0, 1)).swapaxes(0, 1)  # [r, q, kh, kw]
        return np.asarray(self.a.T @ read.reshape(self.a.shape[0], -1)).reshape(self.a.shape[1], -1, kernel)


@dataclass(frozen=True, eq=False)
class LokrModule:
    """`scale * kron(w1, w2)` (LyCORIS, arXiv 2309.14859).

    The scale is alpha / r, r being the inner dimension of whichever factor is a product; where both are whole there is
    no r and the scale is 1 whatever alpha says, as LyCORIS trains and A1111 and ComfyUI load it (PEFT's own files keep
    another rule).
    """

    kind: ClassVar[str] = "lokr"

    first: KroneckerFactor
    """w1, `[out1, in1]`."""
    second: KroneckerFactor
    """w2, `[out2, in2]` or `[out2, in2, kh, kw]`."""
    alpha: float
    shape: tuple[int, ...]
    """The layer's weight, `[out1 * out2, in1 * in2]` or `[out1 * out2, in1 * in2, kh, kw]`."""

    @property
    def is_whole(self) -> bool:
        """Whether neither factor is a product."""
        return self.first.rank is None and self.second.rank is None

    @property
    def rank(self) -> int:
        """Inner dimension r; 1 if both factors are whole, as LyCORIS loads them."""
        return self.first.rank or self.second.rank or 1

    @property
    def scale(self) -> float:
        """Intrinsic scale: alpha / r, or 1."""
        return 1.0 if self.is_whole else self.alpha / self.rank

    @property
    def needs_base(self) -> bool:
        """Never."""
        return False

    @property
    def low_rank(self) -> tuple[Array, Array] | None:
        """None: a Kronecker product with a whole matrix may have any rank."""
        return None

    @property
    def tensors(self) -> Mapping[str, Array]:
        """Names of LyCORIS."""
        found: dict[str, Array] = {}
        for number, factor in ((1, self.first), (2, self.second)):
            named = {
                f"lokr_w{number}": factor.whole, f"lokr_w{number}_a": factor.a, f"lokr_w{number}_b": factor.b,
                f"lokr_t{number}": factor.core,
            }  # fmt: skip
            found |= {name: tensor for name, tensor in named.items() if tensor is not None}
        return found

    def delta(self) -> Array:
        """The change at weight 1, in the layer's own shape."""
        kernel = int(np.prod(self.shape[2:]))
        small, large = self.first.product(1), self.second.product(kernel)
        # kron of matrices, a window of the convolution being one entry of the second
        product = small[:, None, :, None] * large[None, :, None, :, :]
        return np.asarray(self.scale * product, dtype=np.float32).reshape(self.shape)

    def change_of(self, base: Array) -> Array:
        """`delta`, whatever the base."""
        del base
        return self.delta()
