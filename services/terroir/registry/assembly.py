"""Puts the registry together on a store: the one place that knows which part needs which."""

from __future__ import annotations

from dataclasses import dataclass

from terroir.common.clock import Clock
from terroir.common.signatures import Signer
from terroir.registry.adapters import Adapters, AdapterSearch
from terroir.registry.bases.bases import Bases
from terroir.registry.compatibility import CompatibilityCheck
from terroir.registry.downloads import Downloads
from terroir.registry.index.fold import REGIONS
from terroir.registry.index.live import IndexPolicy, LiveIndex
from terroir.registry.index.search import Search
from terroir.registry.lineage import Lineages
from terroir.registry.moving.adapter_presets import PresetBook
from terroir.registry.moving.aliases import Aliases
from terroir.registry.moving.audit import Audit
from terroir.registry.moving.deprecation import Deprecations
from terroir.registry.moving.state import States
from terroir.registry.publishing import Publisher
from terroir.registry.regions.log import RegionLog
from terroir.registry.regions.regions import Regions
from terroir.registry.regions.saved_recipes import SavedRecipes
from terroir.registry.settings import RegistrySettings
from terroir.registry.versions import Versions
from terroir.store.blobs import Blobs
from terroir.store.documents import Collection, DocumentSequence
from terroir.store.interface import ObjectStore
from terroir.store.journal import Journal


@dataclass(frozen=True)
class Registry:
    """The domain objects of one replica; any number may share a store."""

    store: ObjectStore
    bases: Bases
    adapters: Adapters
    search: AdapterSearch
    live: LiveIndex
    """Filled, not yet following; whoever serves starts and stops it."""
    publisher: Publisher
    downloads: Downloads
    regions: Regions
    recipes: SavedRecipes
    presets: PresetBook
    compatibility: CompatibilityCheck
    audit: Audit
    lineages: Lineages


def assemble(store: ObjectStore, clock: Clock, settings: RegistrySettings) -> Registry:
    """A registry on a store, its configured bases registered; raises BaseFolderInvalid or BaseChanged."""
    blobs = Blobs(store)
    journal = Journal(store, "journal", clock)
    live = LiveIndex(store, journal, clock, _index_policy(settings))
    live.fill()
    bases = Bases(Collection(store, "bases", clock, log=journal), blobs)
    for base, folder in settings.base_sources.items():
        bases.register_folder(base, folder)
    versions = Versions(Collection(store, "adapters", clock, log=journal))
    states = States(Collection(store, "aliases", clock, log=journal))
    aliases = Aliases(states, clock, settings.protected_aliases)
    adapters = Adapters(versions, aliases, Deprecations(states, clock), live.index, clock)
    region_log = RegionLog(
        DocumentSequence(store, REGIONS, clock, log=journal), newest_known=lambda: live.index.number(REGIONS)
    )
    region_log.current()  # reads all of it now, so that the first caller need not wait for that
    regions = Regions(region_log, adapters, clock)
    return Registry(
        store=store,
        bases=bases,
        adapters=adapters,
        search=AdapterSearch(adapters, Search(live.index, regions)),
        live=live,
        publisher=Publisher(
            bases, versions, blobs, settings.max_upload_bytes, _signer(settings), max_rank=settings.max_rank
        ),
        downloads=Downloads(adapters, bases, blobs),
        regions=regions,
        recipes=SavedRecipes(region_log, adapters),
        presets=PresetBook(states, adapters, blobs, live.index),
        compatibility=CompatibilityCheck(store, adapters, bases),
        audit=Audit(versions, states),
        lineages=Lineages(adapters, live.index, clock),
    )


def _index_policy(settings: RegistrySettings) -> IndexPolicy:
    return IndexPolicy(
        poll_seconds=settings.index_poll_seconds,
        snapshot_changes=settings.index_snapshot_changes,
        snapshot_seconds=settings.index_snapshot_minutes * 60,
        rebuild_parallel_reads=settings.index_rebuild_parallel_reads,
    )


def _signer(settings: RegistrySettings) -> Signer | None:
    return None if settings.signing_key is None else Signer(settings.signing_key)
