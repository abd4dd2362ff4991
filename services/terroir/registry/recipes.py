"""Style recipes: which adapters, at which weights, behind which words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from terroir.common.errors import InvalidArgument

MAX_ADAPTERS: Final = 8
MAX_WEIGHT: Final = 2.0
MAX_PREFIX_CHARACTERS: Final = 200


@dataclass(frozen=True)
class RecipeAdapter:
    """One adapter of a recipe; `adapter` is a reference as a caller wrote it, so an alias stays an alias."""

    adapter: str
    weight: float


@dataclass(frozen=True)
class StyleRecipe:
    """How pictures of a region are styled."""

    adapters: tuple[RecipeAdapter, ...] = ()
    prompt_prefix: str = ""

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return asdict(self)

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> StyleRecipe:
        """Inverse of `to_body`."""
        return StyleRecipe(tuple(RecipeAdapter(**entry) for entry in body["adapters"]), body["prompt_prefix"])


def ensure_recipe(recipe: StyleRecipe, field: str) -> None:
    """Check counts, weights and lengths; raises InvalidArgument. Whether the adapters exist is the caller's question."""
    if len(recipe.adapters) > MAX_ADAPTERS:
        raise InvalidArgument(
            f"the recipe has {len(recipe.adapters)} adapters; at most {MAX_ADAPTERS} are allowed: leave the weakest out",
            reason="RECIPE_TOO_LONG",
            field=f"{field}.adapters",
        )
    if len(recipe.prompt_prefix) > MAX_PREFIX_CHARACTERS:
        raise InvalidArgument(
            f"prompt_prefix has {len(recipe.prompt_prefix)} characters; at most {MAX_PREFIX_CHARACTERS} are allowed",
            reason="TEXT_TOO_LONG",
            field=f"{field}.prompt_prefix",
        )
    for index, entry in enumerate(recipe.adapters):
        if not math.isfinite(entry.weight) or abs(entry.weight) > MAX_WEIGHT:
            raise InvalidArgument(
                f"weight {entry.weight} of {entry.adapter} is outside -{MAX_WEIGHT:g} … {MAX_WEIGHT:g}",
                reason="WEIGHT_OUT_OF_RANGE",
                field=f"{field}.adapters[{index}].weight",
            )
