"""Strengths in a header: `lora_adapter_metadata`, PEFT's LoraConfig as JSON, keys prefixed by component or not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from terroir.lora.errors import NotFinite, UnsupportedAdapter
from terroir.lora.safetensors_bytes import with_metadata
from terroir.lora.safetensors_header import read_header

METADATA_KEY: Final = "lora_adapter_metadata"
_PLAIN: Final = re.compile(r"\^?[\w.-]+\Z", re.ASCII)
_CHANGES_THE_BASE: Final = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts of training (`init_lora_weights`) that rewrite the base's weights, so that the factors alone mean nothing."""


@dataclass(frozen=True)
class PeftConfig:
    """What the header says of all layers; empty if it says nothing."""

    fields: Mapping[str, Any]

    @staticmethod
    def of(metadata: Mapping[str, str]) -> PeftConfig:
        """From a file's header; raises UnsupportedAdapter (ADAPTER_STRENGTH_UNKNOWN) for what is no JSON object."""
        try:
            fields = json.loads(metadata.get(METADATA_KEY, "{}"))
        except (ValueError, RecursionError) as error:
            raise _strength_unknown(METADATA_KEY, f"in the header is no JSON ({str(error)[:80]})") from error
        if not isinstance(fields, dict):
            raise _strength_unknown(METADATA_KEY, "in the header is no JSON object")
        return PeftConfig(fields)

    def alpha(self, layer: str, rank: int) -> float | None:
        """The layer's alpha such that its scale is alpha / rank, or None if the header has none for its component.

        Raises UnsupportedAdapter for a strength that cannot be told, NotFinite for one that is no finite number.
        """
        component, _, path = layer.partition(".")
        if not any(key.startswith(f"{component}.") or "." not in key for key in self.fields):
            return None
        self._ensure_plain_lora(layer, component)
        alpha = self._pattern(component, "alpha_pattern", path)
        alpha = self._get(component, "lora_alpha") if alpha is None else alpha
        if type(alpha) not in (int, float):
            raise _strength_unknown(layer, f"has the lora_alpha {str(alpha)[:40]!a} in the header, which is no number")
        try:
            value = float(alpha)
        except OverflowError as error:
            raise NotFinite(f"{layer}: alpha in the header exceeds every float", key=layer) from error
        if not math.isfinite(value):
            raise NotFinite(f"{layer}: alpha in the header is {value}", key=layer)
        # rsLoRA scales by alpha / sqrt(r) (Kalajdzievski, arXiv 2312.03732); the canonical scale is alpha / r.
        return value * math.sqrt(rank) if self._get(component, "use_rslora") is True else value

    def is_dora(self, layer: str) -> bool:
        """Whether the header says that the layer has a magnitude."""
        return self._get(layer.partition(".")[0], "use_dora") is True

    def _get(self, component: str, name: str) -> Any:
        return self.fields.get(f"{component}.{name}", self.fields.get(name))

    def _pattern(self, component: str, name: str, path: str) -> Any:
        """Value of the key that ends the path, as PEFT's `get_pattern_key` picks it.

        PEFT takes the keys for regular expressions; those of a file from elsewhere are never run.
        """
        pattern = self._get(component, name) or {}
        if not isinstance(pattern, dict) or not all(_PLAIN.match(key) for key in pattern):
            raise _strength_unknown(name, "in the header has keys other than plain layer names")
        for key, value in pattern.items():
            whole = key.removeprefix("^")
            if path == whole or (path.endswith(f".{whole}") and whole == key):
                return value
        return None

    def _ensure_plain_lora(self, layer: str, component: str) -> None:
        init = self._get(component, "init_lora_weights")
        if isinstance(init, str) and init.lower().startswith(_CHANGES_THE_BASE):
            raise UnsupportedAdapter(
                f"{layer}: the header says init_lora_weights={init[:40]!a}, which changed the base's own weights, so "
                "the adapter fits no other copy of the base; convert it to a LoRA (PEFT, path_initial_model_…)",
                key=layer,
            )


def _strength_unknown(key: str, why: str) -> UnsupportedAdapter:
    return UnsupportedAdapter(
        f"{key} {why}, so the strength is unknown; save the file again", key=key, reason="ADAPTER_STRENGTH_UNKNOWN"
    )


def with_config(data: bytes, config: str) -> bytes:
    """A PEFT folder's `adapter_model.safetensors` with its `adapter_config.json` in the header, where `read` looks.

    A header that has one already is left alone. Raises NotAnAdapterFile.
    """
    metadata = read_header(data).metadata
    if METADATA_KEY in metadata:
        return data
    return with_metadata(data, {**metadata, METADATA_KEY: config})
