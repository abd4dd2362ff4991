"""What tests of registry processes share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of the tiny base's classes with random weights, written by diffusers itself."""
    from terroir.tiny.random_pipeline import build  # needs torch, which no other test of this folder does

    return build(tmp_path_factory.mktemp("pipeline") / "base")
