"""Style recipes: which adapters, at which weights, behind which words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from terroir.common.errors import InvalidArgument
from terroir.common.validation import ensure_range, ensure_text

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
    """Check counts, weights and lengths, not whether the adapters exist; raises InvalidArgument."""
    if len(recipe.adapters) > MAX_ADAPTERS:
        raise InvalidArgument(
            f"the recipe has {len(recipe.adapters)} adapters; at most {MAX_ADAPTERS} are allowed: drop the weakest",
            reason="RECIPE_TOO_LONG",
            field=f"{field}.adapters",
        )
    ensure_text(recipe.prompt_prefix, f"{field}.prompt_prefix", MAX_PREFIX_CHARACTERS)
    for index, entry in enumerate(recipe.adapters):
        ensure_range(entry.weight, f"{field}.adapters[{index}].weight", -MAX_WEIGHT, MAX_WEIGHT)
