"""The registry's domain on each store driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from terroir.store.interface import ObjectStore
from terroir.store.local import LocalStore
from terroir.store.obstore_driver import MemoryStore
from tests.unit.registry.domain_kit import Domain, open_domain


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store of each driver."""
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "data")


@pytest.fixture
def domain(store: ObjectStore) -> Domain:
    """One replica on an empty store."""
    return open_domain(store)


@pytest.fixture
def replica(domain: Domain) -> Domain:
    """A second replica on the same store, with nothing cached."""
    return open_domain(domain.store)
