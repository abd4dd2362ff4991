"""The digest that adapters bind to: one rule for whoever registers a base and whoever trains on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

COMPONENTS: Final = ("unet", "text_encoder", "vae")
SECOND_TEXT_ENCODER: Final = "text_encoder_2"
"""Component that SDXL has beside these."""
WEIGHT_FILES: Final = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_BLOCK_BYTES: Final = 8 * 1024 * 1024


def components_of(folder: Path) -> tuple[str, ...]:
    """Components of a diffusers folder whose weights count."""
    return (*COMPONENTS, SECOND_TEXT_ENCODER) if (folder / SECOND_TEXT_ENCODER).is_dir() else COMPONENTS


def component_digests(folder: Path, on_bytes: Callable[[int], None] = lambda _: None) -> dict[str, str]:
    """SHA-256 (hex) of each component's weight file in a diffusers folder; raises FileNotFoundError naming it.

    `on_bytes` hears after each block how many bytes were read.
    """
    return {component: _file_digest(weight_file(folder / component), on_bytes) for component in components_of(folder)}


def base_digest(component_digests: Mapping[str, str]) -> str:
    """SHA-256 (hex) of the sorted lines `<component> <digest>`; the same wherever the folder lies."""
    lines = "".join(f"{component} {digest}\n" for component, digest in sorted(component_digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def weight_file(component: Path) -> Path:
    """A component's weights; raises FileNotFoundError."""
    for name in WEIGHT_FILES:
        if (component / name).is_file():
            return component / name
    raise FileNotFoundError(f"{component} holds none of {', '.join(WEIGHT_FILES)}")


def _file_digest(path: Path, on_bytes: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            on_bytes(len(block))
    return digest.hexdigest()
