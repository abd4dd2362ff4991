"""A registry's domain on each store driver, and a base folder that is written by hand in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from terroir.common.clock import FixedClock
from terroir.registry.adapters import Adapters
from terroir.registry.aliases import Aliases
from terroir.registry.bases import Bases
from terroir.registry.regions import Regions
from terroir.registry.versions import Lineage, Manifest, StoredFile, Version, Versions
from terroir.store.blobs import Blobs
from terroir.store.documents import Collection, DocumentSequence
from terroir.store.interface import ObjectStore
from terroir.store.local import LocalStore
from terroir.store.memory import MemoryStore


@dataclass(frozen=True)
class Domain:
    """The domain objects of one replica."""

    store: ObjectStore
    clock: FixedClock
    blobs: Blobs
    bases: Bases
    versions: Versions
    aliases: Aliases
    adapters: Adapters
    regions: Regions

    def publish(self, adapter: str, op_id: str, label: str = "") -> Version:
        """Append a version whose file nobody reads."""
        manifest = Manifest(
            base="tiny",
            base_digest="b" * 64,
            kohya=StoredFile("f" * 64, 10),
            diffusers=StoredFile("e" * 64, 12),
            tensor_digest="d" * 64,
            rank=4,
            matched_layers=3,
            ignored=(("odd.key", "no such layer"),),
            trigger_word="jnsty",
            lineage=Lineage(job="jobs/a"),
            labels={"note": label},
            upload_digest="f" * 64,
            upload_format="kohya",
        )
        return self.versions.append(adapter, manifest, op_id=op_id, request={"label": label})


def open_domain(store: ObjectStore) -> Domain:
    """One replica on a store; two calls on one store are two replicas."""
    clock, blobs = FixedClock(), Blobs(store)
    versions = Versions(Collection(store, "adapters", clock))
    aliases = Aliases(Collection(store, "aliases", clock), clock)
    adapters = Adapters(versions, aliases)
    bases = Bases(Collection(store, "bases", clock), blobs)
    regions = Regions(DocumentSequence(store, "regions", clock), adapters)
    return Domain(store, clock, blobs, bases, versions, aliases, adapters, regions)


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """An empty store of each driver."""
    yield MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "data")


@pytest.fixture
def domain(store: ObjectStore) -> Domain:
    """One replica on an empty store."""
    return open_domain(store)


@pytest.fixture
def replica(domain: Domain) -> Domain:
    """A second replica on the same store, with nothing cached."""
    return open_domain(domain.store)
