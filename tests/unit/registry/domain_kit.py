"""A registry's domain objects on any store, for tests that need no files and no server."""

from __future__ import annotations

from dataclasses import dataclass

from terroir.common.clock import FixedClock
from terroir.registry.adapters import Adapters
from terroir.registry.aliases import Aliases
from terroir.registry.bases import Bases
from terroir.registry.region_log import RegionLog
from terroir.registry.regions import Regions
from terroir.registry.saved_recipes import SavedRecipes
from terroir.registry.versions import Lineage, Manifest, StoredFile, Version, Versions
from terroir.store.blobs import Blobs
from terroir.store.documents import Collection, DocumentSequence
from terroir.store.interface import ObjectStore


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
    recipes: SavedRecipes

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
    log = RegionLog(DocumentSequence(store, "regions", clock))
    regions, recipes = Regions(log, adapters, clock), SavedRecipes(log, adapters)
    return Domain(store, clock, blobs, bases, versions, aliases, adapters, regions, recipes)
