"""What one composition adds to each layer."""

from __future__ import annotations

from collections.abc import Mapping

from terroir.inference.engine.wearing.device_adapter import DeviceAdapter, DeviceModule, LowRank
from terroir.inference.engine.wearing.merging import Factors
from terroir.lora.composition import Composition


class Stack:
    """One composition: the terms that it adds to each layer."""

    def __init__(self, composition: Composition, adapters: Mapping[str, DeviceAdapter]) -> None:
        self.pins = 0
        self.key: object = object()
        """Its identity, for those who must not keep its factors alive."""
        self.terms: dict[str, list[tuple[float, DeviceModule]]] = {}
        for part in composition.parts:
            for layer, module in adapters[part.digest].items():
                if weight := part.weight_on(layer):
                    self.terms.setdefault(layer, []).append((weight, module))

    def factors(self, name: str) -> Factors | None:
        """A layer's terms with their scales; None if one of them has no low-rank form."""
        found = []
        for weight, module in self.terms.get(name, ()):
            if not isinstance(module, LowRank) or module.magnitude is not None:
                return None
            found.append((weight * module.scale, module))
        return found
