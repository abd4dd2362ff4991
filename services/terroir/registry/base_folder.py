"""Reads what adapters must know of a base model from its diffusers folder: headers and digests only, no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from terroir.common.base_digest import COMPONENTS, WEIGHT_FILES, base_digest, component_digests
from terroir.registry.errors import BaseFolderInvalid

ADAPTABLE_COMPONENTS: Final = ("unet", "text_encoder")
_FAMILIES: Final = {"StableDiffusionPipeline": "sd15"}
_PREDICTION_TYPES: Final = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class BaseContent:
    """A base model as its folder shows it."""

    family: str
    prediction_type: str
    native_resolution: int
    """Side in pixels."""
    component_digests: Mapping[str, str]
    """SHA-256 (hex) of each component's weight file."""
    digest: str
    """SHA-256 (hex) over the component digests; adapters bind to it."""
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]]
    """Component → tensor name → shape, for the components that an adapter may change."""


def read_base_folder(folder: Path) -> BaseContent:
    """Read a diffusers folder; raises BaseFolderInvalid naming what is missing."""
    if not folder.is_dir():
        raise BaseFolderInvalid(f"base folder {folder} does not exist", reason="BASE_FOLDER_MISSING")
    pipeline = _config(folder / "model_index.json").get("_class_name")
    if pipeline not in _FAMILIES:
        raise BaseFolderInvalid(f"{folder} holds a {pipeline}; supported are: {', '.join(_FAMILIES)}")
    weights = {component: _weight_file(folder / component) for component in COMPONENTS}
    digests = component_digests(folder)
    return BaseContent(
        family=_FAMILIES[pipeline],
        prediction_type=_prediction_type(folder),
        native_resolution=_native_resolution(folder),
        component_digests=digests,
        digest=base_digest(digests),
        shapes={component: _shapes(weights[component]) for component in ADAPTABLE_COMPONENTS},
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseFolderInvalid(f"{path} is missing or no JSON ({error}); point at a diffusers folder") from error
    if not isinstance(config, dict):
        raise BaseFolderInvalid(f"{path} holds no JSON object; point at a diffusers folder")
    return config


def _weight_file(component: Path) -> Path:
    for name in WEIGHT_FILES:
        if (component / name).is_file():
            return component / name
    raise BaseFolderInvalid(
        f"{component} holds none of {', '.join(WEIGHT_FILES)}; save the pipeline with safe_serialization=True "
        "(pickled weights are never read)"
    )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise BaseFolderInvalid(f"{path} is no readable safetensors file ({error}); copy it again") from error


def _prediction_type(folder: Path) -> str:
    path = folder / "scheduler" / "scheduler_config.json"
    kind = _config(path).get("prediction_type", "epsilon")
    if kind not in _PREDICTION_TYPES:
        raise BaseFolderInvalid(f"{path} predicts {kind!r}; supported are: {', '.join(_PREDICTION_TYPES)}")
    return str(kind)


def _native_resolution(folder: Path) -> int:
    """Latent side times the VAE's factor, which halves once between two of its blocks."""
    latents, blocks = _config(folder / "unet" / "config.json"), _config(folder / "vae" / "config.json")
    try:
        halvings = len(blocks["block_out_channels"]) - 1
        return int(latents["sample_size"]) << halvings
    except (KeyError, TypeError, ValueError) as error:
        raise BaseFolderInvalid(
            f"{folder}: unet/config.json needs a whole sample_size and vae/config.json block_out_channels"
        ) from error
