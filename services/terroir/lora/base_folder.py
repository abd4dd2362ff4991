"""Reads what adapters must know of a base model from its diffusers folder: headers and digests, no tensor."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from terroir.common.base_digest import (
    COMPONENTS,
    SECOND_TEXT_ENCODER,
    WEIGHT_FILES,
    base_digest,
    component_digests,
    components_of,
    weight_file,
)
from terroir.common.errors import FailedPrecondition
from terroir.lora.key_table import KeyTable, key_table_of

FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {"sd15": COMPONENTS, "sdxl": (*COMPONENTS, SECOND_TEXT_ENCODER)}
"""Families of base models, and the components whose weights make the base."""
PREDICTION_TYPES: Final = ("epsilon", "v_prediction")
_PIPELINES: Final = {"StableDiffusionPipeline": "sd15", "StableDiffusionXLPipeline": "sdxl"}
_VAE: Final = "vae"
"""The only component that no adapter changes."""
_MAX_HALVINGS: Final = 16
_MAX_HEADER_BYTES: Final = 100_000_000
"""The limit of the safetensors library itself."""


class BaseFolderInvalid(FailedPrecondition):
    """The folder is missing, unreadable or no diffusers pipeline that adapters can bind to."""

    reason = "BASE_FOLDER_INVALID"


@dataclass(frozen=True)
class BaseContent:
    """A base model as its folder shows it."""

    family: str
    prediction_type: str
    native_resolution: int
    """Side in pixels."""
    component_digests: Mapping[str, str]
    """SHA-256 (hex) of each component's weight file."""
    layers: KeyTable
    """What an adapter may change."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the component digests; adapters bind to it."""
        return base_digest(self.component_digests)


def read_base_folder(folder: Path, on_bytes: Callable[[int], None] = lambda _: None) -> BaseContent:
    """Read a diffusers folder; raises BaseFolderInvalid naming what is missing.

    Hashing takes about a second a gigabyte; `on_bytes` hears of its progress.
    """
    family = _family(folder)
    weights = {component: _weights(folder / component) for component in FAMILIES[family]}
    layers = _layers(weights)
    prediction_type, native_resolution = _prediction_type(folder), _native_resolution(folder)
    return BaseContent(family, prediction_type, native_resolution, component_digests(folder, on_bytes), layers)


def read_layers(folder: Path) -> KeyTable:
    """What an adapter may change of the base in a diffusers folder, from headers alone; raises BaseFolderInvalid."""
    return _layers({component: _weights(folder / component) for component in FAMILIES[_family(folder)]})


def weight_bytes(folder: Path) -> int:
    """How many bytes `read_base_folder` hashes; raises BaseFolderInvalid."""
    return sum(_weights(folder / component).stat().st_size for component in FAMILIES[_family(folder)])


def _layers(weights: Mapping[str, Path]) -> KeyTable:
    return key_table_of(**{part: _shapes(path) for part, path in weights.items() if part != _VAE})


def _family(folder: Path) -> str:
    if not folder.is_dir():
        raise BaseFolderInvalid(f"base folder {folder} does not exist", reason="BASE_FOLDER_MISSING")
    pipeline = _config(folder / "model_index.json").get("_class_name")
    if not isinstance(pipeline, str) or pipeline not in _PIPELINES:
        raise BaseFolderInvalid(f"{folder} holds a {pipeline}; supported are: {', '.join(_PIPELINES)}")
    family = _PIPELINES[pipeline]
    if components_of(folder) != FAMILIES[family]:
        raise BaseFolderInvalid(
            f"{folder} holds the components {', '.join(components_of(folder))}, a {pipeline} has "
            f"{', '.join(FAMILIES[family])}; copy the model again"
        )
    return family


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BaseFolderInvalid(f"{path} is missing or no JSON ({error}); point at a diffusers folder") from error
    if not isinstance(config, dict):
        raise BaseFolderInvalid(f"{path} holds no JSON object; point at a diffusers folder")
    return config


def _weights(component: Path) -> Path:
    try:
        return weight_file(component)
    except FileNotFoundError as error:
        raise BaseFolderInvalid(
            f"{component} holds none of {', '.join(WEIGHT_FILES)}; save the pipeline in one file a component with "
            "safe_serialization=True and without a variant (pickled weights are never read)"
        ) from error


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes from a safetensors header (8 bytes length, JSON, then the data, which are not read)."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
                raise ValueError(f"its header claims {length} bytes")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        if end != size - 8 - length:
            raise ValueError(f"it holds {size - 8 - length} bytes of data, its header tells of {end}")
        return {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
    except (OSError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BaseFolderInvalid(f"{path} is no readable safetensors file ({error}); copy it again") from error


def _prediction_type(folder: Path) -> str:
    path = folder / "scheduler" / "scheduler_config.json"
    kind = _config(path).get("prediction_type", "epsilon")
    if kind not in PREDICTION_TYPES:
        raise BaseFolderInvalid(f"{path} predicts {kind!r}; supported are: {', '.join(PREDICTION_TYPES)}")
    return str(kind)


def _native_resolution(folder: Path) -> int:
    """Latent side times the VAE's factor, which halves once between two of its blocks."""
    latents, blocks = _config(folder / "unet" / "config.json"), _config(folder / "vae" / "config.json")
    try:
        halvings = len(blocks["block_out_channels"]) - 1
        if not 0 <= halvings <= _MAX_HALVINGS:
            raise ValueError(f"{halvings + 1} blocks")
        return int(latents["sample_size"]) << halvings
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise BaseFolderInvalid(
            f"{folder}: unet/config.json needs a whole sample_size and vae/config.json block_out_channels"
        ) from error
