"""The region tree: the nearest recipe wins, and the tree stays a tree whoever writes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terroir.common.errors import InvalidArgument
from terroir.registry.errors import AdapterNotFound, AliasNotFound, RegionCycle, RegionEtagMismatch, RegionNotFound
from terroir.registry.paging import PageQuery
from terroir.registry.recipes import RecipeAdapter, StyleRecipe
from terroir.registry.regions import RegionSpec
from terroir.store.errors import OperationConflict
from terroir.store.obstore_driver import MemoryStore
from tests.unit.registry.domain_kit import Domain, open_domain

RECIPE = StyleRecipe((RecipeAdapter("adapters/jiangnan", 0.8),), "ink wash, ")
CHAIN = (RegionSpec("CN", recipe=RECIPE), RegionSpec("CN-ZJ", parent="CN"), RegionSpec("CN-ZJ-HZ", parent="CN-ZJ"))


@pytest.fixture
def tree(domain: Domain) -> Domain:
    """CN (with a recipe) > CN-ZJ > CN-ZJ-HZ."""
    domain.publish("jiangnan", "op")
    for spec in CHAIN:
        domain.regions.put(spec, op_id=spec.code)
    return domain


def test_a_region_without_a_recipe_gets_its_nearest_ancestors_and_says_what_was_tried(tree: Domain) -> None:
    found = tree.regions.resolve("CN-ZJ-HZ")
    assert (found.recipe, found.source) == (RECIPE, "CN")
    assert found.tried == ("CN-ZJ-HZ", "CN-ZJ", "CN")


def test_its_own_recipe_comes_first_even_when_it_is_empty(tree: Domain) -> None:
    tree.regions.put(replace(CHAIN[1], recipe=StyleRecipe()), op_id="own")
    found = tree.regions.resolve("CN-ZJ-HZ")
    assert (found.recipe, found.source, found.tried) == (StyleRecipe(), "CN-ZJ", ("CN-ZJ-HZ", "CN-ZJ"))


def test_a_chain_without_recipes_gives_none_and_the_whole_chain(tree: Domain) -> None:
    tree.regions.put(replace(CHAIN[0], recipe=None), op_id="bare")
    found = tree.regions.resolve("CN-ZJ")
    assert (found.recipe, found.source, found.tried) == (None, None, ("CN-ZJ", "CN"))


@pytest.mark.parametrize("parent", ["CN", "CN-ZJ", "CN-ZJ-HZ"])
def test_no_region_becomes_its_own_ancestor(tree: Domain, parent: str) -> None:
    with pytest.raises(RegionCycle, match="regions/CN"):
        tree.regions.put(RegionSpec("CN", parent=parent), op_id="loop")
    assert tree.regions.get("CN").spec == CHAIN[0]


def test_a_cycle_is_refused_when_another_replica_wrote_the_other_half(tree: Domain, replica: Domain) -> None:
    tree.regions.put(RegionSpec("A"), op_id="a")
    tree.regions.put(RegionSpec("B"), op_id="b")
    assert replica.regions.get("A").spec.parent is None
    tree.regions.put(RegionSpec("A", parent="B"), op_id="ab")
    with pytest.raises(RegionCycle):
        replica.regions.put(RegionSpec("B", parent="A"), op_id="ba")


def test_a_region_put_by_one_replica_is_read_by_the_other(tree: Domain, replica: Domain) -> None:
    assert [region.spec.code for region in replica.regions.page(PageQuery()).items] == ["CN", "CN-ZJ", "CN-ZJ-HZ"]
    tree.regions.put(RegionSpec("JP"), op_id="jp")
    assert replica.regions.get("JP") == tree.regions.get("JP")


def test_an_unknown_parent_region_or_adapter_is_not_found(tree: Domain) -> None:
    with pytest.raises(RegionNotFound, match="regions/XX"):
        tree.regions.put(RegionSpec("YY", parent="XX"), op_id="p")
    with pytest.raises(RegionNotFound, match="regions/YY"):
        tree.regions.resolve("YY")
    with pytest.raises(AdapterNotFound, match="adapters/none"):
        tree.regions.put(RegionSpec("YY", recipe=StyleRecipe((RecipeAdapter("adapters/none", 1.0),))), op_id="q")
    with pytest.raises(AliasNotFound):
        tree.regions.put(RegionSpec("YY", recipe=StyleRecipe((RecipeAdapter("adapters/jiangnan@x", 1.0),))), op_id="r")


def test_a_stale_etag_refuses_a_lost_update_but_other_regions_do_not_disturb(tree: Domain) -> None:
    read = tree.regions.get("CN-ZJ")
    tree.regions.put(RegionSpec("JP"), op_id="jp")
    written = tree.regions.put(replace(read.spec, display_name="Zhejiang"), op_id="one", etag=read.etag)
    with pytest.raises(RegionEtagMismatch):
        tree.regions.put(replace(read.spec, display_name="浙江"), op_id="two", etag=read.etag)
    assert tree.regions.get("CN-ZJ") == written


def test_an_etag_for_a_region_that_does_not_exist_is_refused(tree: Domain) -> None:
    with pytest.raises(RegionEtagMismatch):
        tree.regions.put(RegionSpec("JP"), op_id="jp", etag=tree.regions.get("CN").etag)


def test_a_retried_put_is_done_once_and_another_put_under_its_id_is_an_error(tree: Domain, replica: Domain) -> None:
    read = tree.regions.get("CN")
    first = tree.regions.put(replace(read.spec, display_name="China"), op_id="x", etag=read.etag)
    assert replica.regions.put(replace(read.spec, display_name="China"), op_id="x", etag=read.etag) == first
    with pytest.raises(OperationConflict):
        tree.regions.put(RegionSpec("CN", display_name="Zhōngguó"), op_id="x")


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (StyleRecipe((RecipeAdapter("adapters/jiangnan", 2.01),)), "OUT_OF_RANGE"),
        (StyleRecipe((RecipeAdapter("adapters/jiangnan", math.nan),)), "OUT_OF_RANGE"),
        (StyleRecipe((RecipeAdapter("adapters/jiangnan", -math.inf),)), "OUT_OF_RANGE"),
        (StyleRecipe((RecipeAdapter("adapters/jiangnan", 1.0),) * 9), "RECIPE_TOO_LONG"),
        (StyleRecipe((RecipeAdapter("adapters/../x", 1.0),)), "INVALID_NAME"),
        (StyleRecipe((), "x" * 201), "TEXT_TOO_LONG"),
    ],
)
def test_a_recipe_outside_its_limits_is_refused_with_its_reason(tree: Domain, recipe: StyleRecipe, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        tree.regions.put(RegionSpec("YY", recipe=recipe), op_id="y")
    assert refused.value.reason == reason
    assert "YY" not in [region.spec.code for region in tree.regions.page(PageQuery()).items]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("ABCDE"), st.sampled_from(["A", "B", "C", "D", "E", None])), max_size=25))
def test_however_regions_are_moved_every_chain_ends(moves: list[tuple[str, str | None]]) -> None:
    domain = open_domain(MemoryStore())
    for step, (code, parent) in enumerate(moves):
        try:
            domain.regions.put(RegionSpec(code, parent=parent), op_id=str(step))
        except (RegionCycle, RegionNotFound):
            continue
    for region in domain.regions.page(PageQuery()).items:
        tried = domain.regions.resolve(region.spec.code).tried
        assert len(set(tried)) == len(tried)
        assert domain.regions.get(tried[-1]).spec.parent is None
