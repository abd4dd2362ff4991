"""The embedded tiny base model and tiny CLIP: where their committed weights lie."""

from __future__ import annotations

from pathlib import Path
from typing import Final

BASE_ID: Final = "terroir-tiny"
BASE_DIR: Final = Path(__file__).parent / "weights" / "base"
"""diffusers folder of the base, loadable with `StableDiffusionPipeline.from_pretrained`."""
CLIP_DIR: Final = Path(__file__).parent / "weights" / "clip"
"""transformers folder of the CLIP that scores agreement and similarity."""
NATIVE_SIDE: Final = 64
"""Side in pixels of the square pictures that the base was trained on."""
