"""Two replicas share regions and recipes on a real MinIO."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from terroir.common.clock import SystemClock
from terroir.registry.assembly import Registry, assemble
from terroir.registry.errors import RecipeInUse, RecipeNotFound, RegionCycle
from terroir.registry.paging import PageQuery
from terroir.registry.regions.recipes import RecipeChoice, StyleRecipe
from terroir.registry.regions.tree import RegionSpec
from terroir.registry.settings import RegistrySettings
from terroir.store.errors import StoreUnavailable
from terroir.store.s3 import S3Location, S3Store
from tests.tools.minio_server import MinioServer
from tests.unit.registry.people import ANA

ROUNDS = 20


@contextmanager
def replica(location: S3Location) -> Iterator[Registry]:
    """A registry that follows the bucket as a service does."""
    registry = assemble(S3Store(location), SystemClock(), RegistrySettings(base_sources={}))
    registry.live.start()
    try:
        yield registry
    finally:
        registry.live.stop()


def test_a_region_put_by_one_replica_is_resolved_by_the_other_within_a_second(minio: MinioServer) -> None:
    location = minio.location()
    with replica(location) as one, replica(location) as other:
        one.recipes.put("tea", "", StyleRecipe((), "tea,"), ANA, op_id="tea")
        for number in range(5):
            code = f"x-{number}"
            other.regions.page(PageQuery())
            one.regions.put(RegionSpec(code, choice=RecipeChoice(saved="tea")), ANA, op_id=code)
            assert one.regions.resolve(code).saved_recipe == "tea"
            deadline = time.monotonic() + 1.0
            while code not in [region.spec.code for region in other.regions.page(PageQuery(200)).items]:
                assert time.monotonic() < deadline, f"{code} was not seen within a second"
                time.sleep(0.01)
            assert other.regions.resolve(code).recipe == StyleRecipe((), "tea,")


@pytest.mark.slow(reason="forty races of two replicas on a real MinIO")
def test_of_racing_halves_of_a_broken_rule_one_is_refused_each_round(minio: MinioServer) -> None:
    location = minio.location()
    with replica(location) as one, replica(location) as other, ThreadPoolExecutor(2) as pool:
        for number in range(ROUNDS):
            first, second, recipe = f"x-a{number}", f"x-b{number}", f"r{number}"
            one.regions.put(RegionSpec(first), ANA, op_id=first)
            one.regions.put(RegionSpec(second), ANA, op_id=second)
            one.recipes.put(recipe, "", StyleRecipe(), ANA, op_id=recipe)
            halves: list[Future[Any]] = [
                pool.submit(one.regions.put, RegionSpec(first, parent=second), ANA, op_id=f"{first}-moved"),
                pool.submit(other.regions.put, RegionSpec(second, parent=first), ANA, op_id=f"{second}-moved"),
            ]
            assert [type(half.exception()) for half in halves].count(RegionCycle) == 1
            named = RegionSpec("x-tea", choice=RecipeChoice(saved=recipe))
            halves = [
                pool.submit(one.recipes.delete, recipe, ANA, op_id=f"{recipe}-gone"),
                pool.submit(other.regions.put, named, ANA, op_id=f"{recipe}-named"),
            ]
            assert sorted(type(half.exception()).__name__ for half in halves) in (
                ["NoneType", RecipeInUse.__name__],
                ["NoneType", RecipeNotFound.__name__],
            )


def test_while_minio_is_down_regions_are_resolved_from_memory_and_changes_are_refused(own_minio: MinioServer) -> None:
    location = replace(own_minio.location(), retry_seconds=0.2, timeout_seconds=2.0)
    with replica(location) as registry:
        registry.regions.put(RegionSpec("CN", choice=RecipeChoice(StyleRecipe((), "ink,"))), ANA, op_id="cn")
        own_minio.stop()
        began = time.monotonic()
        for _ in range(20):
            assert registry.regions.resolve("330106").source == "CN"
        assert time.monotonic() - began < 1.0
        with pytest.raises(StoreUnavailable):
            registry.regions.put(RegionSpec("JP"), ANA, op_id="jp")
        own_minio.start()
        registry.regions.put(RegionSpec("JP"), ANA, op_id="jp")
        assert registry.regions.get("JP").spec.code == "JP"
