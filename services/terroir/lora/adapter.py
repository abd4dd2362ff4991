"""The canonical form of an adapter: unscaled factors by layer path."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


class Module(Protocol):
    """Change of one layer: `LoraModule`, `LohaModule` or `LokrModule`."""

    kind: ClassVar[str]
    """`lora`, `loha` or `lokr`, as LyCORIS names its algorithms."""

    @property
    def alpha(self) -> float:
        """Numerator of the intrinsic scale, as the file has it."""
        ...

    @property
    def rank(self) -> int:
        """Inner dimension r of the factors."""
        ...

    @property
    def scale(self) -> float:
        """Intrinsic scale: `delta` includes it."""
        ...

    @property
    def needs_base(self) -> bool:
        """Whether the change depends on the base's weight, so that only `change_of` tells it."""
        ...

    @property
    def low_rank(self) -> tuple[Array, Array] | None:
        """Unscaled pair (down, up) whose product is the change; None if there is none of low rank."""
        ...

    @property
    def tensors(self) -> Mapping[str, Array]:
        """All but alpha, as kohya files name and shape them: what follows the layer in a key → tensor."""
        ...

    def delta(self) -> Array:
        """The change at weight 1, in the layer's own shape; all of it unless the module `needs_base`."""
        ...

    def change_of(self, base: Array) -> Array:
        """The change at weight 1 of the base weight `base`; fp32, in the layer's own shape."""
        ...


@dataclass(frozen=True, eq=False)
class LoraModule:
    """Low-rank change of one layer, `alpha / r * up @ down` (Hu et al., arXiv 2106.09685), r being down's first axis.

    Linear: down `[r, in]`, up `[out, r]`. Convolution: down `[r, in, kh, kw]`, up `[out, r, 1, 1]`.
    """

    kind: ClassVar[str] = "lora"

    down: Array
    up: Array
    alpha: float
    magnitude: Array | None = None
    """DoRA (Liu et al., arXiv 2402.09353): length `[out]` that every output row of `W + delta` is given."""

    @property
    def rank(self) -> int:
        """Inner dimension r."""
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        """Intrinsic scale, alpha / r."""
        return self.alpha / self.rank

    @property
    def needs_base(self) -> bool:
        """Whether it is a DoRA."""
        return self.magnitude is not None

    @property
    def low_rank(self) -> tuple[Array, Array] | None:
        """Its factors; None for a DoRA."""
        return None if self.needs_base else (self.down, self.up)

    @property
    def tensors(self) -> Mapping[str, Array]:
        """Names of sd-scripts, and LyCORIS' for the magnitude."""
        found = {"lora_down.weight": self.down, "lora_up.weight": self.up}
        if self.magnitude is not None:
            found["dora_scale"] = self.magnitude.reshape(-1, *([1] * (self.down.ndim - 1)))
        return found

    def delta(self) -> Array:
        """The low-rank change at weight 1, in the layer's own shape: `[out, in]` or `[out, in, kh, kw]`.

        All of the change, unless the module has a magnitude: then see `change_of`.
        """
        out, inner = self.up.shape[0], self.rank
        flat = self.up.reshape(out, inner) @ self.down.reshape(inner, -1)
        return np.asarray(self.scale * flat, dtype=np.float32).reshape(out, *self.down.shape[1:])

    def change_of(self, base: Array) -> Array:
        """The change at weight 1 of the base weight `base`, a magnitude included; fp32, in the layer's own shape.

        With a magnitude m it is `m * (W + delta) / |W + delta| - W`, rows being normed over all other axes, as PEFT and
        ComfyUI compute it at weight 1.
        """
        delta = self.delta()
        if self.magnitude is None:
            return delta
        directed = base + delta
        lengths = np.linalg.norm(directed.reshape(directed.shape[0], -1), axis=1)
        factors = self.magnitude / np.maximum(lengths, np.finfo(np.float32).tiny)
        return np.asarray(directed * factors.reshape(-1, *([1] * (directed.ndim - 1))) - base, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Adapter:
    """Modules by `<component>.<layer path>`: `unet.down_blocks.0.….attn1.to_q`, `text_encoder.text_model.….q_proj`.

    SDXL has a `text_encoder_2` too.
    """

    modules: Mapping[str, Module]

    @property
    def rank(self) -> int:
        """Largest rank of its modules."""
        return max((module.rank for module in self.modules.values()), default=0)

    @property
    def size_bytes(self) -> int:
        """Bytes that the factors hold in memory."""
        return sum(tensor.nbytes for module in self.modules.values() for tensor in module.tensors.values())

    @property
    def has_magnitudes(self) -> bool:
        """Whether a module is a DoRA."""
        return any(module.needs_base for module in self.modules.values())

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of its modules."""
        return frozenset(module.kind for module in self.modules.values())

    @property
    def is_lora(self) -> bool:
        """Whether every module is one (LoRA, LoCon or DoRA): what diffusers' own format can express."""
        return all(isinstance(module, LoraModule) for module in self.modules.values())

    def tensor_digest(self) -> str:
        """SHA-256 (hex) over names, shapes, alphas and fp32 values: the same for every file format and header."""
        digest = hashlib.sha256()
        for name, module in sorted(self.modules.items()):
            if isinstance(module, LoraModule):
                _add_lora(digest, name, module)
            else:
                _add_module(digest, name, module)
        return digest.hexdigest()


def _add_lora(digest: hashlib._Hash, name: str, module: LoraModule) -> None:
    """As versions of the first release were identified, so that theirs stay."""
    digest.update(f"{name}|{module.down.shape}|{module.up.shape}|{module.alpha!r}\n".encode())
    digest.update(_stored(module.down))
    digest.update(_stored(module.up))
    if module.magnitude is not None:
        digest.update(b"magnitude\n" + _stored(module.magnitude))


def _add_module(digest: hashlib._Hash, name: str, module: Module) -> None:
    digest.update(f"{name}|{module.kind}|{module.alpha!r}\n".encode())
    for part, tensor in sorted(module.tensors.items()):
        digest.update(f"{part}|{tensor.shape}\n".encode() + _stored(tensor))


def _stored(tensor: Array) -> bytes:
    return np.ascontiguousarray(tensor, dtype="<f4").tobytes()
