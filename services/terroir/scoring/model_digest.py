"""Which CLIP made a vector: vectors of two models have nothing in common, so whoever compares asks first."""

from __future__ import annotations

import hashlib
from pathlib import Path

from terroir.common.base_digest import weight_file


def model_digest(folder: Path) -> str:
    """SHA-256 (hex) of a transformers model's weights and configuration; raises FileNotFoundError."""
    digest = hashlib.sha256()
    for path in (weight_file(folder), folder / "config.json", folder / "preprocessor_config.json"):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
