"""A base for servers that are processes of their own, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of the tiny base's classes with random weights."""
    from terroir.tiny.random_pipeline import build  # deferred: imports torch

    return build(tmp_path_factory.mktemp("tiny-base") / "random", seed=3)
