"""Saved recipes: a stack of adapters under a name, for regions and callers to share."""

from __future__ import annotations

from typing import Any, Final

from terroir.common.principal import Principal, Role
from terroir.common.validation import ensure_text
from terroir.registry.adapters import Adapters
from terroir.registry.errors import RecipeEtagMismatch, RecipeInUse, RecipeNotFound
from terroir.registry.names import parse_reference, recipe_name
from terroir.registry.paging import Page, PageQuery, sorted_page_of
from terroir.registry.regions.log import RegionLog, RegionState, recipe_body, recipe_of
from terroir.registry.regions.recipes import SavedRecipe, StyleRecipe, ensure_recipe

MAX_DISPLAY_NAME_CHARACTERS: Final = 120


class SavedRecipes:
    """Reads and changes saved recipes; safe for threads."""

    def __init__(self, log: RegionLog, adapters: Adapters) -> None:
        self._log = log
        self._adapters = adapters

    def get(self, recipe: str) -> SavedRecipe:
        """One saved recipe; raises RecipeNotFound."""
        return find_recipe(self._log.current(), recipe)

    def page(self, query: PageQuery) -> Page[SavedRecipe]:
        """Saved recipes by id."""
        recipes = self._log.current().recipes
        return sorted_page_of(sorted(recipes), query, recipes.__getitem__, listing="recipes")

    def put(
        self, recipe: str, display_name: str, style: StyleRecipe, principal: Principal, *, op_id: str, etag: str = ""
    ) -> SavedRecipe:
        """Create or replace a saved recipe, once however often this is repeated with one `op_id`.

        Raises PermissionDenied, InvalidArgument, AdapterNotFound, VersionNotFound or AliasNotFound, RecipeEtagMismatch
        when `etag` is not empty and the recipe changed since, and OperationConflict when `op_id` did something else.
        """
        principal.require(Role.STYLIST, f"put {recipe_name(recipe)}")
        ensure_text(display_name, "recipe.display_name", MAX_DISPLAY_NAME_CHARACTERS)
        ensure_recipe(style, "recipe.style")

        def build(state: RegionState) -> dict[str, Any]:
            _ensure_etag(state, recipe, etag)
            ensure_adapters_exist(self._adapters, style, "recipe.style")
            return recipe_body(recipe, display_name, style, principal)

        request = {"put": recipe_name(recipe), "display_name": display_name, "style": style.to_body(), "etag": etag}
        return recipe_of(self._log.append(build, op_id=op_id, request=request))

    def delete(self, recipe: str, principal: Principal, *, op_id: str, etag: str = "") -> None:
        """Remove a saved recipe.

        Raises PermissionDenied, RecipeNotFound, RecipeInUse, RecipeEtagMismatch or OperationConflict.
        """
        principal.require(Role.STYLIST, f"remove {recipe_name(recipe)}")

        def build(state: RegionState) -> dict[str, Any]:
            find_recipe(state, recipe)
            _ensure_etag(state, recipe, etag)
            _ensure_unused(state, recipe)
            return recipe_body(recipe, "", None, principal)

        self._log.append(build, op_id=op_id, request={"delete": recipe_name(recipe), "etag": etag})


def find_recipe(state: RegionState, recipe: str) -> SavedRecipe:
    """A saved recipe of a state; raises RecipeNotFound."""
    if recipe not in state.recipes:
        raise RecipeNotFound(
            f"{recipe_name(recipe)} does not exist (create it with PutRecipe, list recipes with ListRecipes)",
            metadata={"recipe": recipe_name(recipe)},
        )
    return state.recipes[recipe]


def ensure_adapters_exist(adapters: Adapters, style: StyleRecipe, field: str) -> None:
    """Raises InvalidArgument (INVALID_NAME), AdapterNotFound, VersionNotFound or AliasNotFound."""
    for index, entry in enumerate(style.adapters):
        adapters.resolve(parse_reference(entry.adapter, f"{field}.adapters[{index}].adapter"))


def _ensure_etag(state: RegionState, recipe: str, etag: str) -> None:
    current = state.recipes[recipe].etag if recipe in state.recipes else "none"
    if etag and etag != current:
        raise RecipeEtagMismatch(
            f"{recipe_name(recipe)} changed since it was read: its etag is {current}, not {etag}; read it and repeat",
            metadata={"recipe": recipe_name(recipe), "etag": current},
        )


def _ensure_unused(state: RegionState, recipe: str) -> None:
    users = sorted(region.spec.code for region in state.tree.regions.values() if recipe in region.spec.saved_recipes())
    if users:
        shown = ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
        raise RecipeInUse(
            f"{recipe_name(recipe)} is a style of {shown}; give each another recipe first",
            metadata={"recipe": recipe_name(recipe), "regions": str(len(users))},
        )
