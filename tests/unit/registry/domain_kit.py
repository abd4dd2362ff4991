"""A registry's domain objects on any store, for tests that need no files and no server."""

from __future__ import annotations

from dataclasses import dataclass

from terroir.common.clock import FixedClock
from terroir.registry.adapters import Adapters, AdapterSearch
from terroir.registry.bases.bases import Bases
from terroir.registry.index.fold import Index
from terroir.registry.index.live import IndexPolicy, LiveIndex
from terroir.registry.index.search import Search
from terroir.registry.moving.aliases import Aliases
from terroir.registry.moving.audit import Audit
from terroir.registry.moving.deprecation import Deprecations
from terroir.registry.moving.state import States
from terroir.registry.regions.log import RegionLog
from terroir.registry.regions.regions import Regions
from terroir.registry.regions.saved_recipes import SavedRecipes
from terroir.registry.versions import Lineage, Manifest, StoredFile, Version, Versions
from terroir.store.blobs import Blobs
from terroir.store.documents import Collection, DocumentSequence
from terroir.store.interface import ObjectStore
from terroir.store.journal import Journal

FROM_A_JOB = Lineage(job="jobs/a")


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
    states: States
    audit: Audit
    regions: Regions
    recipes: SavedRecipes
    live: LiveIndex
    """Filled; nobody calls `refresh` but the test."""
    search: AdapterSearch

    def publish(self, adapter: str, op_id: str, label: str = "", lineage: Lineage = FROM_A_JOB) -> Version:
        """Append a version whose file nobody reads."""
        manifest = Manifest(
            base="tiny",
            base_digest="b" * 64,
            kohya=StoredFile("f" * 64, 10),
            tensor_digest="d" * 64,
            rank=4,
            matched_layers=3,
            ignored=(("odd.key", "no such layer"),),
            trigger_word="jnsty",
            lineage=lineage,
            labels={"note": label},
            upload_digest="f" * 64,
            upload_format="kohya",
        )
        return self.versions.append(adapter, manifest, op_id=op_id, request={"label": label})


def open_domain(store: ObjectStore, *, indexed: bool = False) -> Domain:
    """One replica on a store; two calls on one store are two replicas.

    Reads go to the store, so that replicas see each other at once; with `indexed` they come from `live`.
    """
    clock, blobs = FixedClock(), Blobs(store)
    journal = Journal(store, "journal", clock)
    policy = IndexPolicy(poll_seconds=60, snapshot_changes=10_000, snapshot_seconds=3600, rebuild_parallel_reads=2)
    live = LiveIndex(store, journal, clock, policy)
    if indexed:
        live.fill()
    versions = Versions(Collection(store, "adapters", clock, log=journal))
    states = States(Collection(store, "aliases", clock, log=journal))
    aliases = Aliases(states, clock, ("production",))
    adapters = Adapters(versions, aliases, Deprecations(states, clock), live.index if indexed else Index(), clock)
    bases = Bases(Collection(store, "bases", clock, log=journal), blobs)
    log = RegionLog(DocumentSequence(store, "regions", clock, log=journal))
    regions, recipes = Regions(log, adapters, clock), SavedRecipes(log, adapters)
    search = AdapterSearch(adapters, Search(live.index, regions))
    return Domain(
        store,
        clock,
        blobs,
        bases,
        versions,
        aliases,
        adapters,
        states,
        Audit(versions, states),
        regions,
        recipes,
        live,
        search,
    )
