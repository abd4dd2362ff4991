"""diffusers and PEFT files (`unet.….lora_A.weight`, `….lora.down.weight`, `base_model.model.….lora_A.weight`).

Alpha lies in the header's `lora_adapter_metadata` (a JSON of PEFT's LoraConfig, keys prefixed by component) or nowhere,
which means alpha = r. Ours is written with alpha folded to r, so readers that ignore
the header agree with those that don't.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, cast

import numpy as np

from terroir.lora import safetensors_bytes
from terroir.lora.adapter import Adapter, Array
from terroir.lora.errors import NotFinite, UnsupportedAdapter
from terroir.lora.formats.assembling import Ignored, Reading
from terroir.lora.key_table import KeyTable

_Part: TypeAlias = Literal["down", "up", "magnitude"]
_METADATA_KEY: Final = "lora_adapter_metadata"
_PEFT_PREFIX: Final = "base_model.model."
_DOWN: Final = (".lora_A.weight", ".lora_A.default.weight", ".lora.down.weight", ".lora_linear_layer.down.weight")
_UP: Final = (".lora_B.weight", ".lora_B.default.weight", ".lora.up.weight", ".lora_linear_layer.up.weight")
_MAGNITUDE: Final = (
    ".lora_magnitude_vector", ".lora_magnitude_vector.weight", ".lora_magnitude_vector.default.weight", ".dora_scale",
)  # fmt: skip
_ENDINGS: Final[tuple[tuple[_Part, tuple[str, ...]], ...]] = (("down", _DOWN), ("up", _UP), ("magnitude", _MAGNITUDE))
_PROCESSOR: Final = re.compile(r"\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight")
"""How diffusers before 0.22 named the factors of attention: `attn1.processor.to_out_lora.up.weight`."""


def read(tensors: Mapping[str, Array], metadata: Mapping[str, str], table: KeyTable) -> Reading:
    """Sort tensors by layer; raises UnsupportedAdapter for what sets an unknown strength."""
    config = _config(metadata)
    reading = Reading()
    for key, tensor in sorted(tensors.items()):
        if key.endswith((".alpha", ".scale")):
            raise UnsupportedAdapter(
                f"{key}: strength tensors are not part of this format; save the file with kohya keys",
                key=key,
                reason="ADAPTER_STRENGTH_UNKNOWN",
            )
        stem, part = _stem(key)
        layer = _layer(stem, table)
        if part is None:
            reading.unknown.append(Ignored(key, "not a LoRA key"))
        elif layer is None:
            reading.unknown.append(Ignored(key, "no such layer in the base"))
        else:
            reading.put(layer, part, key, tensor)
            if part == "down":
                reading.of(layer).alpha = _alpha(config, layer, int(tensor.shape[0]) if tensor.ndim else 0)
    return reading


def to_diffusers(adapter: Adapter, dtype: str = "float32") -> bytes:
    """Write `pytorch_lora_weights.safetensors`: PEFT names, alpha folded into up, LoraConfig in the header."""
    tensors: dict[str, Array] = {}
    for layer, module in adapter.modules.items():
        tensors[f"{layer}.lora_A.weight"] = module.down
        tensors[f"{layer}.lora_B.weight"] = np.asarray(np.float32(module.scale) * module.up, dtype=np.float32)
        if module.magnitude is not None:
            tensors[f"{layer}.lora_magnitude_vector"] = module.magnitude
    config: dict[str, Any] = {}
    for component in ("unet", "text_encoder", "text_encoder_2"):
        ranks = {
            layer.removeprefix(f"{component}."): module.rank
            for layer, module in sorted(adapter.modules.items())
            if layer.startswith(f"{component}.")
        }
        if ranks:
            config |= _lora_config(component, ranks)
            if adapter.has_magnitudes:
                config[f"{component}.use_dora"] = True
    header = {"format": "pt", _METADATA_KEY: json.dumps(config, sort_keys=True)}
    return safetensors_bytes.write(tensors, header, dtype)


def _lora_config(component: str, ranks: Mapping[str, int]) -> dict[str, Any]:
    """Only fields of the oldest PEFT that diffusers supports: an unknown one is a TypeError in its loader."""
    (common, _), *_ = Counter(ranks.values()).most_common(1)
    pattern = {path: rank for path, rank in ranks.items() if rank != common}
    fields = {
        "r": common, "lora_alpha": common, "rank_pattern": pattern, "alpha_pattern": pattern,
        "target_modules": sorted(ranks),
    }  # fmt: skip
    return {f"{component}.{name}": value for name, value in fields.items()}


def _config(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        config = json.loads(metadata.get(_METADATA_KEY, "{}"))
    except (ValueError, RecursionError) as error:
        raise UnsupportedAdapter(
            f"{_METADATA_KEY} in the header is no JSON ({error}), so the strength is unknown; save the file again",
            key=_METADATA_KEY,
            reason="ADAPTER_STRENGTH_UNKNOWN",
        ) from error
    return config if isinstance(config, dict) else {}


def _stem(key: str) -> tuple[str, _Part | None]:
    """The layer that a key names in its file, and which factor it is; None for no LoRA key."""
    for part, endings in _ENDINGS:
        for ending in endings:
            if key.endswith(ending):
                return key.removesuffix(ending), part
    if old := _PROCESSOR.search(key):
        projection = "to_out.0" if old[1] == "to_out" else old[1]
        return f"{key[: old.start()]}.{projection}", cast(_Part, old[2])
    return "", None


def _layer(stem: str, table: KeyTable) -> str | None:
    candidates = [stem]
    if stem.startswith(_PEFT_PREFIX):
        path = stem.removeprefix(_PEFT_PREFIX)
        candidates = [f"unet.{path}", f"text_encoder.{path}", f"text_encoder.text_model.{path}"]
    else:
        component, _, path = stem.partition(".")
        if component.startswith("text_encoder") and not path.startswith("text_model."):
            candidates.append(f"{component}.text_model.{path}")
    return next((candidate for candidate in candidates if candidate in table), None)


def _alpha(config: Mapping[str, Any], layer: str, rank: int) -> float | None:
    component, _, path = layer.partition(".")
    pattern = config.get(f"{component}.alpha_pattern")
    common = config.get(f"{component}.lora_alpha")
    alpha = pattern.get(path, common) if isinstance(pattern, dict) else common
    if not isinstance(alpha, int | float):
        return None
    try:
        alpha = float(alpha)
    except OverflowError as error:
        raise NotFinite(f"{layer}: alpha in the header exceeds every float", key=layer) from error
    # rsLoRA scales by alpha / sqrt(r) (Kalajdzievski, arXiv 2312.03732); the canonical scale is alpha / r.
    return alpha * math.sqrt(rank) if config.get(f"{component}.use_rslora") else alpha
