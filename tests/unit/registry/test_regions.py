"""The region tree: the nearest recipe wins, and the tree stays a tree whoever writes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from terroir.common.errors import InvalidArgument, PermissionDenied
from terroir.registry.errors import (
    AdapterNotFound,
    AliasNotFound,
    RegionCycle,
    RegionDuplicate,
    RegionEtagMismatch,
    RegionInUse,
    RegionNotFound,
)
from terroir.registry.paging import PageQuery
from terroir.registry.regions.log import RegionLog
from terroir.registry.regions.recipes import RecipeAdapter, RecipeChoice, StyleRecipe
from terroir.registry.regions.regions import Regions
from terroir.registry.regions.tree import RegionSpec
from terroir.store.documents import DocumentSequence
from terroir.store.errors import OperationConflict, StoreUnavailable
from tests.unit.registry.domain_kit import Domain, open_domain
from tests.unit.registry.people import ANA, GUEST

RECIPE = StyleRecipe((RecipeAdapter("adapters/jiangnan", 0.8),), "ink wash, ", "photo")
OWN = RecipeChoice(RECIPE)
NOTHING = RecipeChoice()
CHAIN = (RegionSpec("CN", choice=OWN), RegionSpec("CN-ZJ", parent="CN"), RegionSpec("CN-ZJ-HZ", parent="CN-ZJ"))


def spec_of(adapter: str) -> RegionSpec:
    """A region that wears one adapter."""
    return RegionSpec("YY", choice=RecipeChoice(StyleRecipe((RecipeAdapter(adapter, 1.0),))))


@pytest.fixture
def tree(domain: Domain) -> Domain:
    """CN (with a recipe) > CN-ZJ > CN-ZJ-HZ."""
    domain.publish("jiangnan", "op")
    for spec in CHAIN:
        domain.regions.put(spec, ANA, op_id=spec.code)
    return domain


def test_a_region_without_a_recipe_gets_its_nearest_ancestors_and_says_what_was_tried(tree: Domain) -> None:
    found = tree.regions.resolve("CN-ZJ-HZ")
    assert (found.recipe, found.source) == (RECIPE, "CN")
    assert found.tried == ("CN-ZJ-HZ", "CN-ZJ", "CN")


def test_its_own_recipe_comes_first_even_when_it_is_empty(tree: Domain) -> None:
    tree.regions.put(replace(CHAIN[1], choice=RecipeChoice(StyleRecipe())), ANA, op_id="own")
    found = tree.regions.resolve("CN-ZJ-HZ")
    assert (found.recipe, found.source, found.tried) == (StyleRecipe(), "CN-ZJ", ("CN-ZJ-HZ", "CN-ZJ"))


def test_a_chain_without_recipes_gives_none_and_the_whole_chain(tree: Domain) -> None:
    tree.regions.put(replace(CHAIN[0], choice=NOTHING), ANA, op_id="bare")
    found = tree.regions.resolve("CN-ZJ")
    assert (found.recipe, found.source, found.tried) == (None, None, ("CN-ZJ", "CN"))


@pytest.mark.parametrize("parent", ["CN", "CN-ZJ", "CN-ZJ-HZ"])
def test_no_region_becomes_its_own_ancestor(tree: Domain, parent: str) -> None:
    with pytest.raises(RegionCycle, match="regions/CN"):
        tree.regions.put(RegionSpec("CN", parent=parent), ANA, op_id="loop")
    assert tree.regions.get("CN").spec == CHAIN[0]


def test_a_cycle_is_refused_when_another_replica_wrote_the_other_half(tree: Domain, replica: Domain) -> None:
    tree.regions.put(RegionSpec("A"), ANA, op_id="a")
    tree.regions.put(RegionSpec("B"), ANA, op_id="b")
    assert replica.regions.get("A").spec.parent is None
    tree.regions.put(RegionSpec("A", parent="B"), ANA, op_id="ab")
    with pytest.raises(RegionCycle):
        replica.regions.put(RegionSpec("B", parent="A"), ANA, op_id="ba")


def test_a_region_put_by_one_replica_is_read_by_the_other(tree: Domain, replica: Domain) -> None:
    assert [region.spec.code for region in replica.regions.page(PageQuery()).items] == ["CN", "CN-ZJ", "CN-ZJ-HZ"]
    tree.regions.put(RegionSpec("JP"), ANA, op_id="jp")
    assert replica.regions.get("JP") == tree.regions.get("JP")


def test_an_unknown_parent_region_or_adapter_is_not_found(tree: Domain) -> None:
    with pytest.raises(RegionNotFound, match="regions/XX"):
        tree.regions.put(RegionSpec("YY", parent="XX"), ANA, op_id="p")
    with pytest.raises(RegionNotFound, match="regions/YY"):
        tree.regions.resolve("YY")
    with pytest.raises(AdapterNotFound, match="adapters/none"):
        tree.regions.put(spec_of("adapters/none"), ANA, op_id="q")
    with pytest.raises(AliasNotFound):
        tree.regions.put(spec_of("adapters/jiangnan@x"), ANA, op_id="r")


def test_a_stale_etag_refuses_a_lost_update_but_other_regions_do_not_disturb(tree: Domain) -> None:
    read = tree.regions.get("CN-ZJ")
    tree.regions.put(RegionSpec("JP"), ANA, op_id="jp")
    written = tree.regions.put(replace(read.spec, display_name="Zhejiang"), ANA, op_id="one", etag=read.etag)
    with pytest.raises(RegionEtagMismatch):
        tree.regions.put(replace(read.spec, display_name="浙江"), ANA, op_id="two", etag=read.etag)
    assert tree.regions.get("CN-ZJ") == written


def test_an_etag_for_a_region_that_does_not_exist_is_refused(tree: Domain) -> None:
    with pytest.raises(RegionEtagMismatch):
        tree.regions.put(RegionSpec("JP"), ANA, op_id="jp", etag=tree.regions.get("CN").etag)


def test_a_retried_put_is_done_once_and_another_put_under_its_id_is_an_error(tree: Domain, replica: Domain) -> None:
    read = tree.regions.get("CN")
    first = tree.regions.put(replace(read.spec, display_name="China"), ANA, op_id="x", etag=read.etag)
    assert replica.regions.put(replace(read.spec, display_name="China"), ANA, op_id="x", etag=read.etag) == first
    with pytest.raises(OperationConflict):
        tree.regions.put(RegionSpec("CN", display_name="Zhōngguó"), ANA, op_id="x")


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (StyleRecipe((RecipeAdapter("adapters/jiangnan", 2.01),)), "OUT_OF_RANGE"),
        (StyleRecipe((RecipeAdapter("adapters/jiangnan", math.nan),)), "OUT_OF_RANGE"),
        (StyleRecipe((RecipeAdapter("adapters/jiangnan", -math.inf),)), "OUT_OF_RANGE"),
        (StyleRecipe((RecipeAdapter("adapters/jiangnan", 1.0),) * 9), "RECIPE_TOO_LONG"),
        (StyleRecipe((RecipeAdapter("adapters/../x", 1.0),)), "INVALID_NAME"),
        (StyleRecipe((), "x" * 201), "TEXT_TOO_LONG"),
        (StyleRecipe((), "", "x" * 501), "TEXT_TOO_LONG"),
    ],
)
def test_a_recipe_outside_its_limits_is_refused_with_its_reason(tree: Domain, recipe: StyleRecipe, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        tree.regions.put(RegionSpec("YY", choice=RecipeChoice(recipe)), ANA, op_id="y")
    assert refused.value.reason == reason
    assert "YY" not in [region.spec.code for region in tree.regions.page(PageQuery()).items]


def test_a_code_that_nobody_put_gets_the_recipe_of_where_its_spelling_says_it_lies(tree: Domain) -> None:
    found = tree.regions.resolve("330106")
    assert (found.recipe, found.source) == (RECIPE, "CN")
    assert found.tried == ("330106", "330100", "330000", "CN-ZJ", "CN")


def test_a_region_without_a_parent_lies_where_its_spelling_says(tree: Domain) -> None:
    tree.regions.put(RegionSpec("330100"), ANA, op_id="hz")
    assert tree.regions.resolve("330100").source == "CN"
    assert tree.regions.chain("330106") == ("330106", "330100", "330000", "CN-ZJ", "CN")


def test_what_was_said_about_a_parent_goes_before_the_spelling(tree: Domain) -> None:
    tree.regions.put(RegionSpec("x-jiangnan", parent="CN", choice=OWN), ANA, op_id="jn")
    tree.regions.put(RegionSpec("330100", parent="x-jiangnan"), ANA, op_id="hz")
    assert tree.regions.resolve("330106").tried == ("330106", "330100", "x-jiangnan")


def test_where_nobody_put_any_region_of_the_chain_the_error_names_what_was_tried(tree: Domain) -> None:
    with pytest.raises(RegionNotFound, match=r"FR-IDF.*FR"):
        tree.regions.resolve("FR-IDF")


def test_codes_that_differ_only_by_case_are_one_region(tree: Domain) -> None:
    with pytest.raises(RegionDuplicate, match="regions/CN-ZJ"):
        tree.regions.put(RegionSpec("cn-zj"), ANA, op_id="low")
    assert tree.regions.get("cn-zj").spec.code == "CN-ZJ"
    assert tree.regions.resolve("cn-zj").tried == ("CN-ZJ", "CN")
    assert tree.regions.put(RegionSpec("x-tea", parent="cn"), ANA, op_id="tea").spec.parent == "CN"


def test_a_cycle_through_the_spelling_of_codes_is_refused(tree: Domain) -> None:
    tree.regions.put(RegionSpec("330100"), ANA, op_id="hz")
    with pytest.raises(RegionCycle, match="CN-ZJ → 330100 → 330000 → CN-ZJ"):
        tree.regions.put(RegionSpec("CN-ZJ", parent="330100"), ANA, op_id="loop")


def test_a_removed_region_is_gone_and_its_code_lies_where_its_spelling_says(tree: Domain, replica: Domain) -> None:
    tree.regions.put(RegionSpec("x-sea"), ANA, op_id="sea")
    tree.regions.put(RegionSpec("JP", parent="x-sea", choice=OWN), ANA, op_id="jp")
    tree.regions.delete("JP", ANA, op_id="gone", etag=tree.regions.get("JP").etag)
    with pytest.raises(RegionNotFound):
        replica.regions.get("JP")
    with pytest.raises(RegionNotFound):
        replica.regions.delete("JP", ANA, op_id="again")
    replica.regions.delete("CN-ZJ-HZ", ANA, op_id="hz")
    replica.regions.delete("CN-ZJ", ANA, op_id="zj")
    assert replica.regions.resolve("CN-ZJ").tried == ("CN-ZJ", "CN")


def test_a_region_stays_while_others_name_it_as_parent(tree: Domain) -> None:
    with pytest.raises(RegionInUse, match="CN-ZJ"):
        tree.regions.delete("cn", ANA, op_id="gone")
    assert tree.regions.get("CN").spec == CHAIN[0]


def test_a_removal_that_would_close_a_cycle_by_spelling_is_refused(tree: Domain) -> None:
    """330000 is held out of CN-ZJ only by its own parent; without it, its spelling leads back."""
    tree.regions.put(RegionSpec("x-sea"), ANA, op_id="sea")
    tree.regions.put(RegionSpec("330000", parent="x-sea"), ANA, op_id="zj")
    tree.regions.put(RegionSpec("330100"), ANA, op_id="hz")
    tree.regions.put(RegionSpec("CN-ZJ", parent="330100"), ANA, op_id="loop")
    with pytest.raises(RegionCycle):
        tree.regions.delete("330000", ANA, op_id="gone")
    assert tree.regions.chain("CN-ZJ") == ("CN-ZJ", "330100", "330000", "x-sea")


def test_a_retried_removal_is_done_once(tree: Domain, replica: Domain) -> None:
    read = tree.regions.put(RegionSpec("JP"), ANA, op_id="jp")
    tree.regions.delete("JP", ANA, op_id="gone", etag=read.etag)
    replica.regions.put(RegionSpec("JP", display_name="again"), ANA, op_id="jp2")
    replica.regions.delete("JP", ANA, op_id="gone", etag=read.etag)
    assert tree.regions.get("JP").spec.display_name == "again"


def test_a_removal_with_a_stale_etag_is_refused(tree: Domain) -> None:
    read = tree.regions.put(RegionSpec("JP"), ANA, op_id="jp")
    tree.regions.put(RegionSpec("JP", display_name="Japan"), ANA, op_id="jp2")
    with pytest.raises(RegionEtagMismatch):
        tree.regions.delete("JP", ANA, op_id="gone", etag=read.etag)


def test_pages_go_on_behind_a_region_that_was_removed_meanwhile(tree: Domain) -> None:
    first = tree.regions.page(PageQuery(3))
    tree.regions.put(RegionSpec("JP"), ANA, op_id="jp")
    tree.regions.delete("CN-ZJ-HZ", ANA, op_id="gone")
    page = tree.regions.page(PageQuery(2))
    assert (first.next_token, [region.spec.code for region in page.items]) == ("", ["CN", "CN-ZJ"])
    tree.regions.delete("CN-ZJ", ANA, op_id="gone2")
    rest = tree.regions.page(PageQuery(2, page.next_token))
    assert [region.spec.code for region in rest.items] == ["JP"]


def test_while_the_store_cannot_be_reached_known_regions_are_still_resolved(
    tree: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree.regions.resolve("CN-ZJ")
    monkeypatch.setattr(type(tree.store), "get", unreachable)
    assert tree.regions.resolve("CN-ZJ") == before
    with pytest.raises(StoreUnavailable):
        tree.regions.put(RegionSpec("JP"), ANA, op_id="jp")
    with pytest.raises(StoreUnavailable):
        open_domain(tree.store).regions.resolve("CN-ZJ")


def unreachable(_store: object, key: str) -> bytes:
    """A read of a store that is gone."""
    raise StoreUnavailable("the network is down", key)


def test_whoever_changes_a_region_needs_a_role_and_is_kept(tree: Domain) -> None:
    for change in (
        lambda: tree.regions.put(RegionSpec("JP"), GUEST, op_id="jp"),
        lambda: tree.regions.delete("CN-ZJ-HZ", GUEST, op_id="hz"),
    ):
        with pytest.raises(PermissionDenied, match="stylist"):
            change()
    documents = DocumentSequence(tree.store, "regions", tree.clock).history()
    assert [(document.body["name"], document.body["actor"]) for document in documents] == [
        (f"regions/{code}", "local:ana") for code in ("CN", "CN-ZJ", "CN-ZJ-HZ")
    ]


def test_a_replica_that_heard_of_nothing_newer_asks_the_store_nothing(
    tree: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = 0
    sequence = DocumentSequence(tree.store, "regions", tree.clock)
    quick = Regions(RegionLog(sequence, newest_known=lambda: heard), tree.adapters, tree.clock)
    assert quick.resolve("CN-ZJ").source == "CN"  # nothing heard yet: the store is asked
    heard = 3
    tree.regions.put(RegionSpec("CN-ZJ", choice=OWN), ANA, op_id="zj")
    assert quick.resolve("CN-ZJ").source == "CN"
    heard = 4
    assert quick.resolve("CN-ZJ").source == "CN-ZJ"
    quick.put(RegionSpec("JP"), ANA, op_id="jp")
    monkeypatch.setattr(type(tree.store), "get", unreachable)
    assert quick.get("JP").spec == RegionSpec("JP")


@pytest.mark.parametrize("heard", [0, 3, 40, 60, 63])
def test_however_much_a_replica_heard_of_it_starts_with_the_whole_tree(tree: Domain, heard: int) -> None:
    for number in range(60):
        tree.regions.put(RegionSpec(f"x-{number}"), ANA, op_id=str(number))
    sequence = DocumentSequence(tree.store, "regions", tree.clock)
    fresh = Regions(RegionLog(sequence, newest_known=lambda: heard), tree.adapters, tree.clock)
    assert fresh.page(PageQuery(200)) == tree.regions.page(PageQuery(200))
