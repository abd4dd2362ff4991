"""Running registries over a base folder that is written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from terroir.registry.settings import RegistrySettings
from tests.contract.registry.running import Running, running_registry
from tests.unit.registry.base_kit import write_base_folder


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Running]:
    """A fresh registry."""
    yield from _run(tmp_path)


@pytest.fixture(scope="module")
def module_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One registry for the tests of a module."""
    yield from _run(tmp_path_factory.mktemp("registry"))


def _run(folder: Path) -> Iterator[Running]:
    sources = {name: write_base_folder(folder / name, seed) for seed, name in enumerate(("tiny", "other"))}
    with running_registry(RegistrySettings(data_dir=folder / "data", port=0, base_sources=sources)) as running:
        yield running
