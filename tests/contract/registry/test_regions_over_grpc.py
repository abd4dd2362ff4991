"""RegionService and the saved recipes of RegistryService as a client meets them."""

from __future__ import annotations

import pytest
from google.protobuf.json_format import ParseDict

from terroir._proto.registry.v1 import recipe_pb2, registry_pb2
from terroir._proto.registry.v1 import region_pb2 as pb
from tests.contract.registry.running import Running, refused
from tests.unit.registry.adapter_kit import adapter_bytes


def style(adapter: str = "adapters/jiangnan@production", weight: float = 0.8) -> recipe_pb2.StyleRecipe:
    """A recipe of one adapter."""
    return recipe_pb2.StyleRecipe(
        adapters=[recipe_pb2.RecipeAdapter(adapter=adapter, weight=weight)],
        prompt_prefix="ink wash, ",
        negative_prompt="photograph",
    )


def region(code: str, parent: str = "", adapter: str = "", weight: float = 0.8, etag: str = "") -> pb.Region:
    """A region as a client writes it; without an adapter it has no recipe of its own."""
    wanted = pb.Region(name=f"regions/{code}", display_name=code.title(), parent=parent, etag=etag)
    if adapter:
        wanted.recipe.CopyFrom(style(adapter, weight))
    return wanted


def season(**fields: str) -> pb.Region:
    """A region with a season, of which fields are replaced."""
    wanted = region("YY")
    right = {"id": "spring", "from_date": "01-20", "to_date": "02-20"}
    wanted.seasons.append(ParseDict({**right, **fields}, pb.SeasonalRecipe()))
    if not fields.get("saved_recipe"):
        wanted.seasons[0].recipe.CopyFrom(style())
    return wanted


def put(registry: Running, wanted: pb.Region, request_id: str = "") -> pb.Region:
    """PutRegion."""
    stored: pb.Region = registry.regions.PutRegion(pb.PutRegionRequest(region=wanted, request_id=request_id))
    return stored


def save(registry: Running, wanted: recipe_pb2.Recipe, request_id: str = "") -> recipe_pb2.Recipe:
    """PutRecipe."""
    request = registry_pb2.PutRecipeRequest(recipe=wanted, request_id=request_id)
    stored: recipe_pb2.Recipe = registry.api.PutRecipe(request)
    return stored


def resolve(registry: Running, name: str, **fields: str) -> pb.ResolveRegionResponse:
    """ResolveRegion."""
    found: pb.ResolveRegionResponse = registry.regions.ResolveRegion(pb.ResolveRegionRequest(name=name, **fields))
    return found


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
    answer = resolve(tree, "regions/CN-ZJ")
    assert answer.recipe == style()
    assert (answer.source, list(answer.tried)) == ("regions/CN", ["regions/CN-ZJ", "regions/CN"])
    assert (answer.season, answer.saved_recipe) == ("", "")


def test_a_county_that_nobody_put_gets_the_recipe_of_its_country(tree: Running) -> None:
    answer = resolve(tree, "regions/330106")
    assert answer.recipe == style()
    assert list(answer.tried) == [f"regions/{code}" for code in ("330106", "330100", "330000", "CN-ZJ", "CN")]


def test_a_region_without_any_recipe_resolves_to_none(tree: Running) -> None:
    put(tree, region("JP"))
    answer = resolve(tree, "regions/JP")
    assert (answer.HasField("recipe"), answer.source, list(answer.tried)) == (False, "", ["regions/JP"])


def test_a_season_and_a_campaign_bring_their_own_recipe(tree: Running) -> None:
    saved = save(tree, recipe_pb2.Recipe(name="recipes/lanterns", display_name="Lanterns", style=style(weight=1.0)))
    wanted = season(saved_recipe=saved.name)
    wanted.seasons.add(id="sale", campaign="double-eleven").recipe.CopyFrom(style(weight=0.5))
    stored = put(tree, wanted)
    assert stored.seasons == wanted.seasons
    spring = resolve(tree, "regions/YY", date="2027-02-06")
    assert (spring.recipe, spring.season, spring.saved_recipe) == (saved.style, "spring", "recipes/lanterns")
    sale = resolve(tree, "regions/YY", date="2026-11-11", campaign="double-eleven")
    assert (sale.recipe, sale.season, sale.saved_recipe) == (style(weight=0.5), "sale", "")
    plain = resolve(tree, "regions/YY", date="2026-11-11")
    assert (plain.HasField("recipe"), plain.season) == (False, "")


def test_a_removed_region_is_gone_and_a_retry_says_so_too(tree: Running) -> None:
    request = pb.DeleteRegionRequest(name="regions/CN-ZJ", request_id="r1")
    for _ in range(2):
        assert tree.regions.DeleteRegion(request) == pb.DeleteRegionResponse()
    with refused() as error:
        tree.regions.GetRegion(pb.GetRegionRequest(name="regions/CN-ZJ"))
    assert error.reason == "REGION_NOT_FOUND"
    assert list(resolve(tree, "regions/CN-ZJ").tried) == ["regions/CN-ZJ", "regions/CN"]


def test_a_saved_recipe_is_put_read_listed_and_removed(tree: Running) -> None:
    stored = save(tree, recipe_pb2.Recipe(name="recipes/tea", display_name="Tea", style=style()), request_id="r1")
    retried = recipe_pb2.Recipe(name="recipes/tea", display_name="Tea", style=style())
    assert save(tree, retried, request_id="r1") == stored
    save(tree, recipe_pb2.Recipe(name="recipes/wine", style=style()))
    assert tree.api.GetRecipe(registry_pb2.GetRecipeRequest(name="recipes/tea")) == stored
    first = tree.api.ListRecipes(registry_pb2.ListRecipesRequest(page_size=1))
    rest = tree.api.ListRecipes(registry_pb2.ListRecipesRequest(page_token=first.next_page_token))
    assert [recipe.name for recipe in (*first.recipes, *rest.recipes)] == ["recipes/tea", "recipes/wine"]
    for _ in range(2):
        tree.api.DeleteRecipe(registry_pb2.DeleteRecipeRequest(name="recipes/tea", etag=stored.etag, request_id="gone"))
    assert len(tree.api.ListRecipes(registry_pb2.ListRecipesRequest()).recipes) == 1


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
        (region("cn"), "ALREADY_EXISTS", "REGION_DUPLICATE"),
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
        (pb.Region(name="regions/YY", saved_recipe="recipes/none"), "NOT_FOUND", "RECIPE_NOT_FOUND"),
        (pb.Region(name="regions/YY", saved_recipe="tea"), "INVALID_ARGUMENT", "INVALID_NAME"),
        (
            pb.Region(name="regions/YY", saved_recipe="recipes/t", recipe=style()),
            "INVALID_ARGUMENT",
            "RECIPE_AMBIGUOUS",
        ),
        (region("CN", etag="1-stale"), "ABORTED", "REGION_ETAG_MISMATCH"),
        (season(id="Spring"), "INVALID_ARGUMENT", "INVALID_IDENTIFIER"),
        (season(from_date="02-30"), "INVALID_ARGUMENT", "INVALID_DATE"),
        (season(to_date="2026-02-20"), "INVALID_ARGUMENT", "SEASON_DATES_DIFFER"),
        (season(from_date="2026-02-21", to_date="2026-02-20"), "INVALID_ARGUMENT", "SEASON_NEVER"),
        (season(campaign="Double Eleven"), "INVALID_ARGUMENT", "INVALID_IDENTIFIER"),
        (season(saved_recipe="recipes/none"), "NOT_FOUND", "RECIPE_NOT_FOUND"),
        (
            pb.Region(name="regions/YY", seasons=[pb.SeasonalRecipe(id="s")]),
            "INVALID_ARGUMENT",
            "SEASON_WITHOUT_RECIPE",
        ),
        (
            pb.Region(name="regions/YY", seasons=[pb.SeasonalRecipe(id="s", recipe=style())] * 2),
            "INVALID_ARGUMENT",
            "SEASON_DUPLICATE",
        ),
        (
            pb.Region(name="regions/YY", seasons=[pb.SeasonalRecipe(id="s", recipe=style())] * 33),
            "INVALID_ARGUMENT",
            "TOO_MANY_SEASONS",
        ),
    ],
)
def test_a_bad_region_is_refused_and_changes_nothing(tree: Running, wanted: pb.Region, code: str, reason: str) -> None:
    before = tree.regions.ListRegions(pb.ListRegionsRequest())
    with refused() as error:
        put(tree, wanted)
    assert (error.code, error.reason) == (code, reason)
    assert tree.regions.ListRegions(pb.ListRegionsRequest()) == before


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"name": "regions/XX"}, "NOT_FOUND", "REGION_NOT_FOUND"),
        ({"name": "regions/FR-IDF"}, "NOT_FOUND", "REGION_NOT_FOUND"),
        ({"name": "CN"}, "INVALID_ARGUMENT", "INVALID_NAME"),
        ({"name": "regions/CN", "date": "01-20"}, "INVALID_ARGUMENT", "INVALID_DATE"),
        ({"name": "regions/CN", "date": "2026-02-30"}, "INVALID_ARGUMENT", "INVALID_DATE"),
        ({"name": "regions/CN", "campaign": "A B"}, "INVALID_ARGUMENT", "INVALID_IDENTIFIER"),
    ],
)
def test_a_bad_question_is_refused_with_its_reason(
    tree: Running, fields: dict[str, str], code: str, reason: str
) -> None:
    with refused() as error:
        resolve(tree, **fields)
    assert (error.code, error.reason) == (code, reason)


def test_an_unknown_region_is_not_found(tree: Running) -> None:
    for call, request in (
        (tree.regions.GetRegion, pb.GetRegionRequest(name="regions/XX")),
        (tree.regions.DeleteRegion, pb.DeleteRegionRequest(name="regions/XX")),
    ):
        with refused() as error:
            call(request)
        assert (error.code, error.reason) == ("NOT_FOUND", "REGION_NOT_FOUND")


def test_what_others_hang_on_is_not_removed(tree: Running) -> None:
    save(tree, recipe_pb2.Recipe(name="recipes/tea", style=style()))
    put(tree, pb.Region(name="regions/JP", saved_recipe="recipes/tea"))
    for call, request, reason in (
        (tree.regions.DeleteRegion, pb.DeleteRegionRequest(name="regions/CN"), "REGION_IN_USE"),
        (tree.api.DeleteRecipe, registry_pb2.DeleteRecipeRequest(name="recipes/tea"), "RECIPE_IN_USE"),
    ):
        with refused() as error:
            call(request)
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", reason)


@pytest.mark.parametrize(
    ("wanted", "code", "reason"),
    [
        (recipe_pb2.Recipe(name="recipes/Tea"), "INVALID_ARGUMENT", "INVALID_NAME"),
        (recipe_pb2.Recipe(name="tea"), "INVALID_ARGUMENT", "INVALID_NAME"),
        (recipe_pb2.Recipe(name="recipes/t", display_name="x" * 121), "INVALID_ARGUMENT", "TEXT_TOO_LONG"),
        (recipe_pb2.Recipe(name="recipes/t", style=style("adapters/none")), "NOT_FOUND", "ADAPTER_NOT_FOUND"),
        (recipe_pb2.Recipe(name="recipes/t", style=style(weight=3)), "INVALID_ARGUMENT", "OUT_OF_RANGE"),
        (recipe_pb2.Recipe(name="recipes/t", style=style(), etag="1-stale"), "ABORTED", "RECIPE_ETAG_MISMATCH"),
    ],
)
def test_a_bad_recipe_is_refused_and_nothing_is_saved(
    tree: Running, wanted: recipe_pb2.Recipe, code: str, reason: str
) -> None:
    with refused() as error:
        save(tree, wanted)
    assert (error.code, error.reason) == (code, reason)
    assert not tree.api.ListRecipes(registry_pb2.ListRecipesRequest()).recipes


def test_an_unknown_recipe_is_not_found(tree: Running) -> None:
    for call, request in (
        (tree.api.GetRecipe, registry_pb2.GetRecipeRequest(name="recipes/none")),
        (tree.api.DeleteRecipe, registry_pb2.DeleteRecipeRequest(name="recipes/none")),
    ):
        with refused() as error:
            call(request)
        assert (error.code, error.reason) == ("NOT_FOUND", "RECIPE_NOT_FOUND")
