"""One running terroir for all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from terroir.tiny import BASE_DIR
from tests.command_line import CommandLine, Up, base_settings


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed base, or while there is none a random pipeline of its classes."""
    if (BASE_DIR / "unet" / "diffusion_pytorch_model.safetensors").exists():
        return BASE_DIR
    from terroir.tiny.random_pipeline import build  # needs torch

    return build(tmp_path_factory.mktemp("pipeline") / "base")


@pytest.fixture(scope="session")
def terroir(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """Commands against a `terroir up` with free ports on a folder of its own."""
    data_dir = tmp_path_factory.mktemp("terroir") / "data"
    with Up(data_dir, base_settings(base_dir)) as running:
        yield CommandLine(data_dir, running.ready()["pids"])
