"""Saved recipes: shared by regions, and never gone while one names them."""

from __future__ import annotations

from datetime import date

import pytest

from terroir.common.errors import InvalidArgument, PermissionDenied
from terroir.registry.errors import AdapterNotFound, RecipeEtagMismatch, RecipeInUse, RecipeNotFound
from terroir.registry.paging import PageQuery
from terroir.registry.regions.recipes import RecipeAdapter, RecipeChoice, StyleRecipe
from terroir.registry.regions.seasons import Season
from terroir.registry.regions.tree import RegionSpec
from terroir.store.errors import OperationConflict
from tests.unit.registry.domain_kit import Domain
from tests.unit.registry.people import ANA, GUEST

TEA = StyleRecipe((RecipeAdapter("adapters/tea", 0.8),), "tea house, ", "photo")
SAVED = RecipeChoice(saved="tea")


@pytest.fixture
def stocked(domain: Domain) -> Domain:
    """A saved recipe `tea`."""
    domain.publish("tea", "op")
    domain.recipes.put("tea", "Tea houses", TEA, ANA, op_id="tea")
    return domain


def test_a_saved_recipe_is_read_as_it_was_put_on_every_replica(stocked: Domain, replica: Domain) -> None:
    found = replica.recipes.get("tea")
    assert (found.id, found.display_name, found.style) == ("tea", "Tea houses", TEA)
    assert found == stocked.recipes.get("tea")
    assert [recipe.id for recipe in replica.recipes.page(PageQuery()).items] == ["tea"]
    assert replica.regions.page(PageQuery()).items == ()


def test_a_region_wears_the_saved_recipe_that_it_names_and_follows_its_changes(stocked: Domain) -> None:
    stocked.regions.put(RegionSpec("CN", choice=SAVED), ANA, op_id="cn")
    found = stocked.regions.resolve("CN-ZJ")
    assert (found.recipe, found.source, found.saved_recipe) == (TEA, "CN", "tea")
    stocked.recipes.put("tea", "", StyleRecipe(), ANA, op_id="empty")
    assert stocked.regions.resolve("CN-ZJ").recipe == StyleRecipe()


def test_a_season_wears_a_saved_recipe_and_the_answer_says_so(stocked: Domain) -> None:
    spring = Season("spring", SAVED, "01-20", "02-20")
    stocked.regions.put(RegionSpec("CN", choice=RecipeChoice(StyleRecipe()), seasons=(spring,)), ANA, op_id="cn")
    found = stocked.regions.resolve("CN", day=date(2026, 2, 1))
    assert (found.recipe, found.season, found.saved_recipe) == (TEA, "spring", "tea")
    plain = stocked.regions.resolve("CN", day=date(2026, 7, 1))
    assert (plain.recipe, plain.season, plain.saved_recipe) == (StyleRecipe(), None, None)


def test_without_a_day_it_is_today_by_the_clock(stocked: Domain) -> None:
    spring = Season("spring", SAVED, "01-20", "02-20")
    stocked.regions.put(RegionSpec("CN", seasons=(spring,)), ANA, op_id="cn")
    assert stocked.regions.resolve("CN").season is None
    stocked.clock.advance(20 * 86400.0)
    assert stocked.regions.resolve("CN").season == "spring"


def test_a_recipe_stays_while_a_region_or_a_season_names_it(stocked: Domain, replica: Domain) -> None:
    stocked.regions.put(RegionSpec("CN", choice=SAVED), ANA, op_id="cn")
    stocked.regions.put(RegionSpec("JP", seasons=(Season("spring", SAVED),)), ANA, op_id="jp")
    with pytest.raises(RecipeInUse, match="CN, JP"):
        replica.recipes.delete("tea", ANA, op_id="gone")
    replica.regions.put(RegionSpec("CN"), ANA, op_id="cn2")
    with pytest.raises(RecipeInUse, match="JP"):
        stocked.recipes.delete("tea", ANA, op_id="gone")
    stocked.regions.delete("JP", ANA, op_id="jp2")
    replica.recipes.delete("tea", ANA, op_id="gone")
    with pytest.raises(RecipeNotFound):
        stocked.recipes.get("tea")
    with pytest.raises(RecipeNotFound):
        stocked.regions.put(RegionSpec("CN", choice=SAVED), ANA, op_id="cn3")
    assert stocked.regions.get("CN").spec.choice.is_empty


def test_a_stale_etag_refuses_a_lost_update_and_a_retry_is_done_once(stocked: Domain, replica: Domain) -> None:
    read = stocked.recipes.get("tea")
    first = stocked.recipes.put("tea", "one", TEA, ANA, op_id="one", etag=read.etag)
    assert replica.recipes.put("tea", "one", TEA, ANA, op_id="one", etag=read.etag) == first
    for change in (
        lambda: stocked.recipes.put("tea", "two", TEA, ANA, op_id="two", etag=read.etag),
        lambda: stocked.recipes.delete("tea", ANA, op_id="gone", etag=read.etag),
        lambda: stocked.recipes.put("new", "", TEA, ANA, op_id="new", etag=read.etag),
    ):
        with pytest.raises(RecipeEtagMismatch):
            change()
    with pytest.raises(OperationConflict):
        stocked.recipes.put("tea", "two", TEA, ANA, op_id="one")


@pytest.mark.parametrize(
    ("display_name", "style", "reason"),
    [
        ("x" * 121, TEA, "TEXT_TOO_LONG"),
        ("", StyleRecipe((RecipeAdapter("adapters/tea", -2.5),)), "OUT_OF_RANGE"),
        ("", StyleRecipe((RecipeAdapter("tea", 1.0),)), "INVALID_NAME"),
    ],
)
def test_a_bad_recipe_is_refused_with_its_reason(
    stocked: Domain, display_name: str, style: StyleRecipe, reason: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        stocked.recipes.put("bad", display_name, style, ANA, op_id="bad")
    assert refused.value.reason == reason


def test_an_adapter_that_nobody_published_is_not_found(stocked: Domain) -> None:
    with pytest.raises(AdapterNotFound):
        stocked.recipes.put("bad", "", StyleRecipe((RecipeAdapter("adapters/none", 1.0),)), ANA, op_id="bad")


def test_whoever_changes_a_recipe_needs_a_role(stocked: Domain) -> None:
    for change in (
        lambda: stocked.recipes.put("tea", "", TEA, GUEST, op_id="put"),
        lambda: stocked.recipes.delete("tea", GUEST, op_id="gone"),
    ):
        with pytest.raises(PermissionDenied, match="stylist"):
            change()
    assert stocked.recipes.get("tea").style == TEA
