"""A bucket of the first release is readable forever, also after it was copied elsewhere."""

from __future__ import annotations

import tarfile
from datetime import date
from pathlib import Path

import pytest

from terroir.common.clock import FixedClock
from terroir.lora.formats import parse
from terroir.registry.assembly import Registry, assemble
from terroir.registry.downloads import AdapterFormat
from terroir.registry.index.search import AdapterFilter
from terroir.registry.moving.aliases import Move
from terroir.registry.names import parse_reference
from terroir.registry.paging import PageQuery
from terroir.registry.settings import RegistrySettings
from terroir.store.interface import ObjectStore
from terroir.store.local import LocalStore
from tests.integration.registry.bucket_v1 import ANA
from tests.tools.minio_server import MinioServer

BUCKET = Path(__file__).resolve().parents[2] / "fixtures" / "registry" / "bucket-v1.tar.gz"


@pytest.fixture(params=["folder", "minio"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """The frozen bucket in a folder, or copied object by object into a fresh bucket."""
    with tarfile.open(BUCKET) as archive:
        archive.extractall(tmp_path / "data", filter="data")
    folder = LocalStore(tmp_path / "data")
    if request.param == "folder":
        return folder
    server: MinioServer = request.getfixturevalue("minio")
    bucket = server.store()
    for key in folder.list(""):
        bucket.create(key, folder.get(key))
    return bucket


@pytest.fixture
def registry(store: ObjectStore) -> Registry:
    """A registry of today on it; it has no folder of the base any more."""
    return open_registry(store)


def open_registry(store: ObjectStore) -> Registry:
    """One start, later than everything that is in the bucket."""
    clock = FixedClock()
    clock.advance(86_400)
    return assemble(store, clock, RegistrySettings(base_sources={}))


def test_everything_that_was_kept_is_still_there(registry: Registry) -> None:
    adapters = registry.adapters
    assert [adapter.adapter for adapter in registry.search.page(AdapterFilter(), PageQuery()).items] == [
        "hebei",
        "jiangnan",
    ]
    assert adapters.resolve(parse_reference("adapters/hebei@production")).number == 1
    newest = adapters.resolve(parse_reference("adapters/jiangnan@production"))
    manifest = newest.manifest
    assert (newest.number, manifest.trigger_word, manifest.tags) == (3, "jnsty", ("ink", "garden"))
    assert (manifest.region, manifest.metrics, manifest.description) == (
        "CN-ZJ",
        {"style_similarity": 0.8},
        "墨 and mist",
    )
    assert (manifest.actor, manifest.lineage.checkpoint) == ("local:ana", "jobs/1/checkpoints/300")
    (alias,) = adapters.get("jiangnan").aliases
    assert alias.entry.canary is not None
    assert (alias.entry.number, alias.entry.canary.number, alias.entry.trail) == (3, 2, (1,))
    first = adapters.resolve(parse_reference("adapters/jiangnan/versions/1"))
    assert first.deprecation is not None
    assert first.deprecation.reason == "smears"
    shown = registry.presets.get("jiangnan")
    assert [preset.display_name for preset in shown.presets] == ["soft"]
    assert [sample.caption for sample in shown.samples] == ["a lake"]
    assert len(registry.audit.page("jiangnan", PageQuery()).items) == 10


def test_files_of_then_are_whole_and_parse(registry: Registry) -> None:
    table = registry.bases.key_table(registry.bases.get("tiny"))
    for number in (1, 2, 3):
        for adapter_format in AdapterFormat:
            download = registry.downloads.open(parse_reference(f"adapters/jiangnan/versions/{number}"), adapter_format)
            assert parse(b"".join(download.chunks), table).matched == 3


def test_regions_of_then_resolve(registry: Registry) -> None:
    summer = registry.regions.resolve("CN-ZJ", day=date(2026, 7, 1))
    assert (summer.source, summer.tried) == ("x-jiangnan", ("CN-ZJ", "x-jiangnan"))
    spring = registry.regions.resolve("330106", day=date(2026, 2, 1))
    assert spring.source == "CN-ZJ"


def test_work_goes_on_where_it_stopped(registry: Registry, store: ObjectStore) -> None:
    """What was done then is not done again, and what is done now is seen by the next start."""
    again = registry.adapters.set_alias(Move("hebei", "production", 1, "behind the snapshot"), ANA, op_id="set-4")
    assert again.number == 1
    assert len(registry.audit.page("hebei", PageQuery()).items) == 2
    registry.adapters.set_alias(Move("jiangnan", "production", 2, "calmer"), ANA, op_id="new")
    next_start = open_registry(store)
    assert next_start.adapters.resolve(parse_reference("adapters/jiangnan@production")).number == 2
    newest = next_start.audit.page("jiangnan", PageQuery(1)).items
    assert [event.reason for event in newest] == ["calmer"]
