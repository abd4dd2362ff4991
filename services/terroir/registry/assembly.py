"""Puts the registry together on a store: the one place that knows which part needs which."""

from __future__ import annotations

from dataclasses import dataclass

from terroir.common.clock import Clock
from terroir.registry.adapters import Adapters
from terroir.registry.aliases import Aliases
from terroir.registry.bases import Bases
from terroir.registry.compatibility import CompatibilityCheck
from terroir.registry.downloads import Downloads
from terroir.registry.publishing import Publisher
from terroir.registry.region_log import RegionLog
from terroir.registry.regions import Regions
from terroir.registry.saved_recipes import SavedRecipes
from terroir.registry.settings import RegistrySettings
from terroir.registry.versions import Versions
from terroir.store.blobs import Blobs
from terroir.store.documents import Collection, DocumentSequence
from terroir.store.interface import ObjectStore


@dataclass(frozen=True)
class Registry:
    """The domain objects of one replica; any number may share a store."""

    bases: Bases
    adapters: Adapters
    publisher: Publisher
    downloads: Downloads
    regions: Regions
    recipes: SavedRecipes
    compatibility: CompatibilityCheck


def assemble(store: ObjectStore, clock: Clock, settings: RegistrySettings) -> Registry:
    """A registry on a store, its configured bases registered; raises BaseFolderInvalid or BaseChanged."""
    blobs = Blobs(store)
    bases = Bases(Collection(store, "bases", clock), blobs)
    for base, folder in settings.base_sources.items():
        bases.register(base, folder)
    versions = Versions(Collection(store, "adapters", clock))
    adapters = Adapters(versions, Aliases(Collection(store, "aliases", clock), clock))
    region_log = RegionLog(DocumentSequence(store, "regions", clock))
    return Registry(
        bases=bases,
        adapters=adapters,
        publisher=Publisher(bases, versions, blobs, settings.max_upload_bytes),
        downloads=Downloads(adapters, blobs),
        regions=Regions(region_log, adapters, clock),
        recipes=SavedRecipes(region_log, adapters),
        compatibility=CompatibilityCheck(store, adapters, bases),
    )
