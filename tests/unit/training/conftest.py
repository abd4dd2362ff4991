from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from small_bases import small_sd, small_sdxl
from training_kit import Bench

from terroir.tiny.random_pipeline import build


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of random weights."""
    return build(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def bench(base_dir: Path) -> Bench:
    return Bench(base_dir)


@pytest.fixture(scope="session")
def sd_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of Stable Diffusion 1.x's blocks at a few channels."""
    return small_sd(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="session")
def sdxl_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of SDXL's blocks at a few channels."""
    return small_sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="session")
def small(sd_dir: Path) -> Bench:
    """Runs on the smallest base."""
    return Bench(sd_dir)
