"""Between the contract's messages of regions and recipes and the domain's values; no rules beyond shapes of names."""

from __future__ import annotations

from terroir._proto.registry.v1 import recipe_pb2
from terroir._proto.registry.v1 import region_pb2 as pb
from terroir.registry.names import parse_recipe, parse_region, recipe_name, region_name
from terroir.registry.regions.recipes import RecipeAdapter, RecipeChoice, SavedRecipe, StyleRecipe
from terroir.registry.regions.regions import Resolution
from terroir.registry.regions.seasons import Season
from terroir.registry.regions.tree import Region, RegionSpec


def region_message(region: Region) -> pb.Region:
    """A region as the contract shows it."""
    spec = region.spec
    return pb.Region(
        name=region_name(spec.code),
        display_name=spec.display_name,
        parent=region_name(spec.parent) if spec.parent is not None else "",
        recipe=_optional_style(spec.choice.recipe),
        saved_recipe=_optional_name(spec.choice.saved),
        seasons=[_season_message(season) for season in spec.seasons],
        etag=region.etag,
    )


def region_spec(message: pb.Region) -> RegionSpec:
    """The region that a caller wants; raises InvalidArgument (INVALID_NAME)."""
    return RegionSpec(
        code=parse_region(message.name, "region.name"),
        display_name=message.display_name,
        parent=parse_region(message.parent, "region.parent") if message.parent else None,
        choice=_choice(message, "region"),
        seasons=tuple(_season(season, f"region.seasons[{index}]") for index, season in enumerate(message.seasons)),
    )


def resolution_message(resolution: Resolution) -> pb.ResolveRegionResponse:
    """The answer of ResolveRegion."""
    return pb.ResolveRegionResponse(
        recipe=_optional_style(resolution.recipe),
        source=region_name(resolution.source) if resolution.source is not None else "",
        tried=[region_name(code) for code in resolution.tried],
        season=resolution.season or "",
        saved_recipe=_optional_name(resolution.saved_recipe),
        further=[region_name(code) for code in resolution.further],
    )


def recipe_message(recipe: SavedRecipe) -> recipe_pb2.Recipe:
    """A saved recipe as the contract shows it."""
    return recipe_pb2.Recipe(
        name=recipe_name(recipe.id),
        display_name=recipe.display_name,
        style=_style_message(recipe.style),
        etag=recipe.etag,
    )


def style_recipe(message: recipe_pb2.StyleRecipe) -> StyleRecipe:
    """The recipe in a message."""
    entries = tuple(RecipeAdapter(entry.adapter, entry.weight) for entry in message.adapters)
    return StyleRecipe(entries, message.prompt_prefix, message.negative_prompt)


def _choice(message: pb.Region | pb.SeasonalRecipe, field: str) -> RecipeChoice:
    return RecipeChoice(
        recipe=style_recipe(message.recipe) if message.HasField("recipe") else None,
        saved=parse_recipe(message.saved_recipe, f"{field}.saved_recipe") if message.saved_recipe else None,
    )


def _season(message: pb.SeasonalRecipe, field: str) -> Season:
    return Season(
        id=message.id,
        choice=_choice(message, field),
        from_date=message.from_date,
        to_date=message.to_date,
        campaign=message.campaign,
    )


def _season_message(season: Season) -> pb.SeasonalRecipe:
    return pb.SeasonalRecipe(
        id=season.id,
        from_date=season.from_date,
        to_date=season.to_date,
        campaign=season.campaign,
        recipe=_optional_style(season.choice.recipe),
        saved_recipe=_optional_name(season.choice.saved),
    )


def _optional_style(style: StyleRecipe | None) -> recipe_pb2.StyleRecipe | None:
    return None if style is None else _style_message(style)


def _optional_name(recipe: str | None) -> str:
    return "" if recipe is None else recipe_name(recipe)


def _style_message(style: StyleRecipe) -> recipe_pb2.StyleRecipe:
    return recipe_pb2.StyleRecipe(
        adapters=[recipe_pb2.RecipeAdapter(adapter=entry.adapter, weight=entry.weight) for entry in style.adapters],
        prompt_prefix=style.prompt_prefix,
        negative_prompt=style.negative_prompt,
    )
