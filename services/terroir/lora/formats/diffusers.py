"""diffusers and PEFT files (`unet.….lora_A.weight`, `….lora.down.weight`, `base_model.model.….lora_A.weight`).

Alpha lies in the header (`peft_config`) or nowhere, which means alpha = r. Ours is written with alpha folded to r, so
readers that ignore the header agree with those that don't.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, cast

import numpy as np

from terroir.lora import safetensors_bytes
from terroir.lora.adapter import Adapter, Array, LoraModule
from terroir.lora.errors import IncompleteModule, NotFinite, UnsupportedAdapter
from terroir.lora.formats.kinds import refuse
from terroir.lora.formats.peft_config import METADATA_KEY, PeftConfig
from terroir.lora.formats.reading import Ignored, Reading
from terroir.lora.key_table import KeyTable

_Part: TypeAlias = Literal["down", "up", "magnitude"]
PEFT_PREFIX: Final = "base_model.model."
_COMPONENTS: Final = ("unet", "text_encoder", "text_encoder_2")
_PREFIXES: Final = (*(f"{component}." for component in _COMPONENTS), "transformer.")
_PARTS: Final[Mapping[str, _Part]] = {
    "lora_A": "down", "lora.down": "down", "lora_linear_layer.down": "down",
    "lora_B": "up", "lora.up": "up", "lora_linear_layer.up": "up",
}  # fmt: skip
_FACTOR: Final = re.compile(
    r"\.(?:(lora_[AB])(?:\.[A-Za-z0-9_-]+)?|(lora\.(?:down|up)|lora_linear_layer\.(?:down|up)))\.weight\Z"
)
"""PEFT may keep the adapter's name: `lora_A.default.weight`."""
_MAGNITUDE: Final = re.compile(r"\.(?:lora_magnitude_vector(?:\.[A-Za-z0-9_-]+)?(?:\.weight)?|dora_scale)\Z")
_PROCESSOR: Final = re.compile(r"(?:\.processor)?\.to_(q|k|v|out)_lora\.(down|up)\.weight\Z")
"""How diffusers before 0.22 named the factors of attention: `attn1.processor.to_out_lora.up.weight`."""

_NAMES: Final = {"loha": "LoHa", "lokr": "LoKr"}
NOT_IN_DIFFUSERS: Final = "ADAPTER_NOT_IN_DIFFUSERS"
"""Reason of what is a good adapter that this format has no words for."""
_LARGEST: Final = float(np.finfo(np.float32).max)
_HALF_GRID: Final = 2.0**-25
"""Half the distance of float16 values near zero: halving an `up` may move its tiniest ones by so much, which is nothing
beside the others and saves the file from doubling."""


def is_factor(key: str) -> bool:
    """Whether a key ends as this format's do."""
    return _split(key)[1] is not None


def read(tensors: Mapping[str, Array], metadata: Mapping[str, str], table: KeyTable) -> Reading:
    """Sort tensors by layer; raises UnsupportedAdapter for what sets an unknown strength or is no LoRA."""
    config = PeftConfig.of(metadata)
    reading = Reading()
    for key, tensor in sorted(tensors.items()):
        if key.endswith((".alpha", ".scale")):
            raise UnsupportedAdapter(
                f"{key}: strength tensors are not part of this format; save the file with kohya keys",
                key=key,
                reason="ADAPTER_STRENGTH_UNKNOWN",
            )
        stem, part = _split(key)
        layer = _layer(stem, table)
        if part is None:
            _refuse_half_read(key, table)
            reading.unknown.append(Ignored(key, "not a LoRA key"))
        elif layer is None:
            reading.unknown.append(Ignored(key, "no such layer in the base"))
        else:
            # PEFT keeps the magnitudes of a convolution as [1, out, 1, 1].
            reading.put(layer, part, key, tensor.reshape(-1) if part == "magnitude" and tensor.ndim == 4 else tensor)
            if part == "down":
                reading.of(layer).alpha = _alpha(config, layer, key, tensor)
    for layer, factors in reading.layers.items():
        if config.is_dora(layer) and factors.magnitude is None:
            raise IncompleteModule(f"{layer} has no magnitude, the header says DoRA; save the file again", key=layer)
    return reading


def to_diffusers(adapter: Adapter, dtype: str | None = None) -> bytes:
    """Write `pytorch_lora_weights.safetensors`: PEFT names, alpha folded into up, LoraConfig in the header.

    `dtype` as in `safetensors_bytes.encode`; None may move values by 2^-25, see `_HALF_GRID`. Raises UnsupportedAdapter
    if a component has layers with and without magnitude, which PEFT cannot express, NotFinite if folding overflows.
    """
    modules_of = ensure_expressible(adapter)
    tensors: dict[str, Array] = {}
    config: dict[str, Any] = {}
    for component, modules in modules_of.items():
        config |= _lora_config(component, modules)
        for path, module in modules.items():
            tensors[f"{component}.{path}.lora_A.weight"] = module.down
            tensors[f"{component}.{path}.lora_B.weight"] = _folded(module)
            if module.magnitude is not None:
                shape = (1, -1, 1, 1) if module.down.ndim == 4 else (-1,)
                tensors[f"{component}.{path}.lora_magnitude_vector"] = module.magnitude.reshape(shape)
    header = {"format": "pt", METADATA_KEY: json.dumps(config, sort_keys=True)}
    return safetensors_bytes.assemble(safetensors_bytes.encode(tensors, dtype, tolerance=_HALF_GRID), header)


def ensure_expressible(adapter: Adapter) -> Mapping[str, Mapping[str, LoraModule]]:
    """Modules by component and path; raises UnsupportedAdapter or NotFinite for what `to_diffusers` cannot write."""
    found = _by_component(adapter)
    for layer, module in ((f"{part}.{path}", m) for part, modules in found.items() for path, m in modules.items()):
        if abs(module.scale) > 1 and not float(np.abs(module.up).max()) * abs(module.scale) <= _LARGEST:
            raise NotFinite(
                f"{layer}: alpha {module.alpha:g} times its factors exceeds 32-bit floats; save it with a usual alpha",
                key=layer,
            )
    for component, modules in found.items():
        doras = [path for path, module in modules.items() if module.magnitude is not None]
        if doras and len(doras) < len(modules):
            plain = next(path for path, module in modules.items() if module.magnitude is None)
            raise UnsupportedAdapter(
                f"{component}.{plain} is a LoRA and {component}.{doras[0]} a DoRA; PEFT and diffusers cannot hold both "
                "in one adapter: publish them as two",
                key=f"{component}.{plain}",
            )
    return found


def _by_component(adapter: Adapter) -> dict[str, dict[str, LoraModule]]:
    found: dict[str, dict[str, LoraModule]] = {}
    for layer, module in sorted(adapter.modules.items()):
        if not isinstance(module, LoraModule):
            raise UnsupportedAdapter(
                f"{layer} is a {_NAMES.get(module.kind, module.kind)}, which diffusers' own format cannot express; "
                "take the kohya file (ComfyUI reads it), or export the base with it merged",
                key=layer,
                reason=NOT_IN_DIFFUSERS,
            )
        component, _, path = layer.partition(".")
        found.setdefault(component, {})[path] = module
    return found


def _folded(module: LoraModule) -> Array:
    return module.up if module.scale == 1 else np.asarray(np.float32(module.scale) * module.up, dtype=np.float32)


def _lora_config(component: str, modules: Mapping[str, LoraModule]) -> dict[str, Any]:
    """Only fields of the oldest PEFT that diffusers supports: an unknown one is a TypeError in its loader."""
    ranks = {path: module.rank for path, module in modules.items()}
    (common, _), *_ = Counter(ranks.values()).most_common(1)
    pattern = {path: rank for path, rank in ranks.items() if rank != common}
    fields: dict[str, Any] = {
        "r": common, "lora_alpha": common, "rank_pattern": pattern, "alpha_pattern": pattern,
        "target_modules": sorted(ranks),
    }  # fmt: skip
    if any(module.magnitude is not None for module in modules.values()):
        fields["use_dora"] = True
    return {f"{component}.{name}": value for name, value in fields.items()}


def _split(key: str) -> tuple[str, _Part | None]:
    """The layer that a key names in its file, and which factor it is; None for no LoRA key."""
    if found := _FACTOR.search(key):
        return key[: found.start()], _PARTS[found[1] or found[2]]
    if found := _MAGNITUDE.search(key):
        return key[: found.start()], "magnitude"
    if found := _PROCESSOR.search(key):
        stem, projection = key[: found.start()], found[1]
        if stem.endswith(".self_attn"):  # of a text encoder
            return f"{stem}.{projection}_proj", cast(_Part, found[2])
        return f"{stem}.to_{projection}" + (".0" if projection == "out" else ""), cast(_Part, found[2])
    return "", None


def _layer(stem: str, table: KeyTable) -> str | None:
    if stem.startswith(PEFT_PREFIX):
        path = stem.removeprefix(PEFT_PREFIX)
        candidates = [f"unet.{path}", f"text_encoder.{path}", f"text_encoder.text_model.{path}"]
    elif stem.startswith(_PREFIXES):
        component, _, path = stem.partition(".")
        candidates = [stem, f"{component}.text_model.{path}"]
    else:  # attention processors and U-Nets saved by themselves
        candidates = [f"unet.{stem}"]
    return next((candidate for candidate in candidates if candidate in table), None)


def _refuse_half_read(key: str, table: KeyTable) -> None:
    parts = key.split(".")
    for count in range(min(len(parts), 16) - 1, 1, -1):
        if _layer(".".join(parts[:count]), table) is not None:
            raise refuse(key, ".".join(parts[count:]))


def _alpha(config: PeftConfig, layer: str, key: str, down: Array) -> float | None:
    alpha = config.alpha(layer, int(down.shape[0]) if down.ndim else 0)
    if alpha is None and key.startswith(PEFT_PREFIX):
        raise UnsupportedAdapter(
            f"{key}: PEFT keeps lora_alpha in adapter_config.json beside such a file, so the strength is unknown; save "
            f"it with the pipeline's save_lora_weights, or put that JSON into the header as {METADATA_KEY}",
            key=key,
            reason="ADAPTER_STRENGTH_UNKNOWN",
        )
    return alpha
