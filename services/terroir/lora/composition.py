"""What a request applies: adapters with weights, in one canonical form that serves as cache and batch key.

The applied change of a layer is `Σ w_i · delta_i`, for LoRA `Σ w_i · alpha_i / r_i · up_i @ down_i`, all against the
pristine base weight, so order does not matter. Rules as in serving stacks of the field: the same adapter twice adds up,
zero weights vanish.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from terroir.lora.adapter import Adapter, Array, Module


@dataclass(frozen=True, order=True)
class Part:
    """One adapter of a composition, by digest, with its weight on the denoiser and on the text encoder."""

    digest: str
    weight: float
    text_encoder_weight: float

    def weight_on(self, layer: str) -> float:
        """The weight that applies to `<component>.<path>`."""
        return self.text_encoder_weight if layer.startswith("text_encoder") else self.weight


@dataclass(frozen=True)
class Composition:
    """Parts in canonical order; equal compositions are equal values and draw equal pictures."""

    parts: tuple[Part, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[tuple[str, float, float]]) -> Composition:
        """From (digest, weight, text encoder weight): duplicates summed, zeros dropped, sorted by digest."""
        totals: dict[str, tuple[float, float]] = {}
        for digest, weight, text_weight in sorted(entries):
            before = totals.get(digest, (0.0, 0.0))
            totals[digest] = (before[0] + weight, before[1] + text_weight)
        return cls(tuple(Part(d, w, t) for d, (w, t) in sorted(totals.items()) if w or t))

    @property
    def digests(self) -> tuple[str, ...]:
        """Digests of the adapters that it needs."""
        return tuple(part.digest for part in self.parts)

    def layers(self, adapters: Mapping[str, Adapter]) -> list[str]:
        """Layers that it changes, sorted."""
        names = {layer for part in self.parts for layer in adapters[part.digest].modules if part.weight_on(layer)}
        return sorted(names)

    def delta(self, adapters: Mapping[str, Adapter], layer: str, base: Array | None = None) -> Array:
        """Change of one layer in its own shape, fp32; KeyError if no part changes it.

        `base` is the layer's pristine weight, which DoRA modules need (ValueError without). A DoRA counts as the change
        that it makes to the base at weight 1, times its weight: so weights stay linear, order does not matter, and zero
        is the base. A1111 and ComfyUI do the same; PEFT scales inside the norm and differs at weights other than 1.
        """
        total: Array | None = None
        for weight, module in self._terms(adapters, layer):
            if module.needs_base and base is None:
                raise ValueError(f"{layer}: a DoRA module needs the base weight")
            change = module.delta() if base is None else module.change_of(base)
            term = np.float32(weight) * change
            total = term if total is None else total + term
        if total is None:
            raise KeyError(layer)
        return total

    def rank_concatenated(self, adapters: Mapping[str, Adapter], layer: str) -> tuple[Array, Array]:
        """The same change as one pair: down `[Σr, in …]` and up `[out, Σr …]` with all scales folded into up.

        ValueError for a DoRA, LoHa or LoKr, whose changes have no such form.
        """
        downs, ups = [], []
        for weight, module in self._terms(adapters, layer):
            if module.low_rank is None:
                kind = "DoRA" if module.needs_base else module.kind
                raise ValueError(f"{layer}: a {kind} module has no low-rank form")
            down, up = module.low_rank
            downs.append(down)
            ups.append(np.float32(weight * module.scale) * up)
        if not downs:
            raise KeyError(layer)
        return np.concatenate(downs, axis=0), np.concatenate(ups, axis=1)

    def _terms(self, adapters: Mapping[str, Adapter], layer: str) -> Iterable[tuple[float, Module]]:
        for part in self.parts:
            module = adapters[part.digest].modules.get(layer)
            if module is not None and part.weight_on(layer):
                yield part.weight_on(layer), module
