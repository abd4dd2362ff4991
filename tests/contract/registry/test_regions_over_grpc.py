"""RegionService as a client meets it."""

from __future__ import annotations

import pytest

from terroir._proto.registry.v1 import region_pb2 as pb
from tests.contract.registry.running import Running, refused
from tests.unit.registry.adapter_kit import adapter_bytes


def region(code: str, parent: str = "", adapter: str = "", weight: float = 0.8, etag: str = "") -> pb.Region:
    """A region as a client writes it; without an adapter it has no recipe of its own."""
    wanted = pb.Region(name=f"regions/{code}", display_name=code.title(), parent=parent, etag=etag)
    if adapter:
        wanted.recipe.adapters.add(adapter=adapter, weight=weight)
        wanted.recipe.prompt_prefix = "ink wash, "
    return wanted


def put(registry: Running, wanted: pb.Region, request_id: str = "") -> pb.Region:
    """PutRegion."""
    stored: pb.Region = registry.regions.PutRegion(pb.PutRegionRequest(region=wanted, request_id=request_id))
    return stored


@pytest.fixture
def tree(registry: Running) -> Running:
    """CN with a recipe, CN-ZJ without."""
    registry.publish("adapters/jiangnan", adapter_bytes(rank=1))
    registry.set_alias("production", 1)
    put(registry, region("CN", adapter="adapters/jiangnan@production"))
    put(registry, region("CN-ZJ", parent="regions/CN"))
    return registry


def test_what_is_put_is_what_is_read(tree: Running) -> None:
    stored = tree.regions.GetRegion(pb.GetRegionRequest(name="regions/CN"))
    wanted = region("CN", adapter="adapters/jiangnan@production", etag=stored.etag)
    assert stored == wanted
    assert stored.etag
    assert not tree.regions.GetRegion(pb.GetRegionRequest(name="regions/CN-ZJ")).HasField("recipe")


def test_resolving_tells_recipe_source_and_the_chain_tried(tree: Running) -> None:
    answer = tree.regions.ResolveRegion(pb.ResolveRegionRequest(name="regions/CN-ZJ"))
    assert [(entry.adapter, entry.weight) for entry in answer.recipe.adapters] == [
        ("adapters/jiangnan@production", 0.8)
    ]
    assert (answer.source, list(answer.tried)) == ("regions/CN", ["regions/CN-ZJ", "regions/CN"])


def test_a_region_without_any_recipe_resolves_to_none(tree: Running) -> None:
    put(tree, region("JP"))
    answer = tree.regions.ResolveRegion(pb.ResolveRegionRequest(name="regions/JP"))
    assert (answer.HasField("recipe"), answer.source, list(answer.tried)) == (False, "", ["regions/JP"])


def test_regions_are_listed_page_by_page(tree: Running) -> None:
    put(tree, region("JP"))
    first = tree.regions.ListRegions(pb.ListRegionsRequest(page_size=2))
    second = tree.regions.ListRegions(pb.ListRegionsRequest(page_size=2, page_token=first.next_page_token))
    assert [found.name for found in (*first.regions, *second.regions)] == ["regions/CN", "regions/CN-ZJ", "regions/JP"]


def test_a_retried_put_is_done_once(tree: Running) -> None:
    first = put(tree, region("JP"), request_id="r1")
    assert put(tree, region("JP"), request_id="r1") == first


@pytest.mark.parametrize(
    ("wanted", "code", "reason"),
    [
        (region("CN", parent="regions/CN-ZJ"), "FAILED_PRECONDITION", "REGION_CYCLE"),
        (region("CN", parent="regions/CN"), "FAILED_PRECONDITION", "REGION_CYCLE"),
        (region("YY", parent="regions/XX"), "NOT_FOUND", "REGION_NOT_FOUND"),
        (region("YY", adapter="adapters/none"), "NOT_FOUND", "ADAPTER_NOT_FOUND"),
        (region("YY", adapter="adapters/jiangnan@none"), "NOT_FOUND", "ALIAS_NOT_FOUND"),
        (region("YY", adapter="adapters/jiangnan/versions/7"), "NOT_FOUND", "VERSION_NOT_FOUND"),
        (region("YY", adapter="adapters/../x"), "INVALID_ARGUMENT", "INVALID_NAME"),
        (region("YY", adapter="adapters/jiangnan", weight=float("nan")), "INVALID_ARGUMENT", "OUT_OF_RANGE"),
        (region("../YY"), "INVALID_ARGUMENT", "INVALID_NAME"),
        (region("YY", parent="regions/.."), "INVALID_ARGUMENT", "INVALID_NAME"),
        (region("Y" * 61 + "-é"), "INVALID_ARGUMENT", "INVALID_NAME"),
        (pb.Region(name="regions/YY", display_name="x" * 121), "INVALID_ARGUMENT", "TEXT_TOO_LONG"),
        (region("CN", etag="1-stale"), "ABORTED", "REGION_ETAG_MISMATCH"),
    ],
)
def test_a_bad_region_is_refused_and_changes_nothing(tree: Running, wanted: pb.Region, code: str, reason: str) -> None:
    before = tree.regions.ListRegions(pb.ListRegionsRequest())
    with refused() as error:
        put(tree, wanted)
    assert (error.code, error.reason) == (code, reason)
    assert tree.regions.ListRegions(pb.ListRegionsRequest()) == before


def test_an_unknown_region_is_not_found(tree: Running) -> None:
    for call, request in (
        (tree.regions.GetRegion, pb.GetRegionRequest(name="regions/XX")),
        (tree.regions.ResolveRegion, pb.ResolveRegionRequest(name="regions/XX")),
    ):
        with refused() as error:
            call(request)
        assert (error.code, error.reason) == ("NOT_FOUND", "REGION_NOT_FOUND")
