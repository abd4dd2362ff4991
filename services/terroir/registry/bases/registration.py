"""What is told about a base model when it is registered, and whether it can be true."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from terroir.common.base_digest import base_digest
from terroir.common.errors import InvalidArgument
from terroir.common.validation import ensure_digest, ensure_range, ensure_text
from terroir.lora.base_folder import FAMILIES, PREDICTION_TYPES, BaseContent
from terroir.lora.key_table import KeyTable

MAX_LAYERS: Final = 20_000
"""SDXL has about 1,100."""
MAX_LAYER_CHARACTERS: Final = 256
MAX_SIDE: Final = 1 << 20
MAX_ELEMENTS: Final = 1 << 31
MAX_SOURCE_CHARACTERS: Final = 256
MIN_RESOLUTION: Final = 32
MAX_RESOLUTION: Final = 4096
_PATH: Final = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_LINEAR_AXES, _CONVOLUTION_AXES = 2, 4


@dataclass(frozen=True)
class BaseRegistration:
    """A base model as whoever registers it read it."""

    family: str
    prediction_type: str
    native_resolution: int
    """Side in pixels."""
    component_digests: Mapping[str, str]
    layers: KeyTable
    source: str = ""
    """Where the weights came from: a hub name with its revision, or empty."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the component digests; adapters bind to it."""
        return base_digest(self.component_digests)

    @staticmethod
    def of(content: BaseContent, source: str = "") -> BaseRegistration:
        """The registration of what a folder shows."""
        return BaseRegistration(
            content.family, content.prediction_type, content.native_resolution, content.component_digests,
            content.layers, source,
        )  # fmt: skip

    def ensure(self) -> None:
        """Check all that can be checked without the weights.

        Raises InvalidArgument: BASE_FAMILY_UNKNOWN, BASE_PREDICTION_UNKNOWN, BASE_COMPONENTS, INVALID_DIGEST,
        OUT_OF_RANGE, BASE_LAYERS, BASE_LAYER_NAME, BASE_LAYER_SHAPE or TEXT_TOO_LONG.
        """
        if self.family not in FAMILIES:
            raise InvalidArgument(
                f"family {self.family[:64]!r} is not supported; supported are: {', '.join(FAMILIES)}",
                reason="BASE_FAMILY_UNKNOWN",
                field="family",
            )
        if self.prediction_type not in PREDICTION_TYPES:
            raise InvalidArgument(
                f"prediction_type {self.prediction_type[:64]!r} is not one of {', '.join(PREDICTION_TYPES)}",
                reason="BASE_PREDICTION_UNKNOWN",
                field="prediction_type",
            )
        ensure_range(self.native_resolution, "native_resolution", MIN_RESOLUTION, MAX_RESOLUTION)
        ensure_text(self.source, "source", MAX_SOURCE_CHARACTERS)
        self._ensure_components()
        self._ensure_layers()

    def _ensure_components(self) -> None:
        expected = FAMILIES[self.family]
        if set(self.component_digests) != set(expected):
            given = ", ".join(sorted(self.component_digests))[:200] or "none"
            raise InvalidArgument(
                f"component_digests are given for {given}; a base of {self.family} has {', '.join(expected)}",
                reason="BASE_COMPONENTS",
                field="component_digests",
            )
        for component, digest in self.component_digests.items():
            ensure_digest(digest, f"component_digests[{component}]")

    def _ensure_layers(self) -> None:
        if not 1 <= len(self.layers) <= MAX_LAYERS:
            raise _wrong(f"{len(self.layers)} layers are outside 1 … {MAX_LAYERS}; send the base's own", "BASE_LAYERS")
        changeable = {component for component in FAMILIES[self.family] if component != "vae"}
        for layer, shape in self.layers.items():
            component, _, path = layer.partition(".")
            if len(layer) > MAX_LAYER_CHARACTERS or component not in changeable or not _PATH.fullmatch(path):
                raise _wrong(
                    f"layer {layer[:80]!r} is not <component>.<path> with a component of "
                    f"{', '.join(sorted(changeable))} and at most {MAX_LAYER_CHARACTERS} characters",
                    "BASE_LAYER_NAME",
                )
            _ensure_shape(layer, shape)
        if missing := changeable - {layer.partition(".")[0] for layer in self.layers}:
            raise _wrong(f"no layer of {', '.join(sorted(missing))} is given; read the folder again", "BASE_LAYERS")


def _ensure_shape(layer: str, shape: tuple[int, ...]) -> None:
    if len(shape) not in (_LINEAR_AXES, _CONVOLUTION_AXES):
        raise _wrong(f"layer {layer} has the shape {shape[:8]}; it needs 2 or 4 axes", "BASE_LAYER_SHAPE")
    if not all(1 <= side <= MAX_SIDE for side in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise _wrong(
            f"layer {layer} has the shape {shape}; each side is 1 … {MAX_SIDE}, and at most {MAX_ELEMENTS} elements "
            "are in it",
            "BASE_LAYER_SHAPE",
        )


def _wrong(message: str, reason: str) -> InvalidArgument:
    return InvalidArgument(message, reason=reason, field="layers")
