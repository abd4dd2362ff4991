"""The digest that adapters bind to: one rule for whoever registers a base and whoever trains on it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

COMPONENTS: Final = ("unet", "text_encoder", "vae")
WEIGHT_FILES: Final = ("diffusion_pytorch_model.safetensors", "model.safetensors")


def component_digests(folder: Path) -> dict[str, str]:
    """SHA-256 (hex) of each component's weight file in a diffusers folder; raises FileNotFoundError naming it."""
    return {component: _file_digest(_weight_file(folder / component)) for component in COMPONENTS}


def base_digest(component_digests: Mapping[str, str]) -> str:
    """SHA-256 (hex) of the sorted lines `<component> <digest>`; the same wherever the folder lies."""
    lines = "".join(f"{component} {digest}\n" for component, digest in sorted(component_digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _weight_file(component: Path) -> Path:
    for name in WEIGHT_FILES:
        if (component / name).is_file():
            return component / name
    raise FileNotFoundError(f"{component} holds none of {', '.join(WEIGHT_FILES)}")


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
