from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from training_kit import Bench

from terroir.tiny.random_pipeline import build


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of random weights."""
    return build(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def bench(base_dir: Path) -> Bench:
    return Bench(base_dir)
