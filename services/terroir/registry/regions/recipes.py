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
MAX_NEGATIVE_CHARACTERS: Final = 500


@dataclass(frozen=True)
class RecipeAdapter:
    """One adapter of a recipe; `adapter` is a reference as a caller wrote it, so an alias stays an alias."""

    adapter: str
    weight: float


@dataclass(frozen=True)
class StyleRecipe:
    """How pictures are styled; an empty one means: in no style."""

    adapters: tuple[RecipeAdapter, ...] = ()
    prompt_prefix: str = ""
    negative_prompt: str = ""
    """For requests that bring none."""

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return asdict(self)

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> StyleRecipe:
        """Inverse of `to_body`."""
        return StyleRecipe(**{**body, "adapters": tuple(RecipeAdapter(**entry) for entry in body["adapters"])})


@dataclass(frozen=True)
class RecipeChoice:
    """Whose recipe: one's own, a saved one by its id, or (empty) none."""

    recipe: StyleRecipe | None = None
    saved: str | None = None

    @property
    def is_empty(self) -> bool:
        """Nothing was chosen; an empty recipe is a choice."""
        return self.recipe is None and self.saved is None

    def ensure(self, field: str) -> None:
        """Check the recipe and that there is only one; `field` holds it. Raises InvalidArgument."""
        if self.recipe is not None and self.saved is not None:
            raise InvalidArgument(
                f"{field} has a recipe and names recipes/{self.saved}; keep one of them",
                reason="RECIPE_AMBIGUOUS",
                field=f"{field}.saved_recipe",
            )
        if self.recipe is not None:
            ensure_recipe(self.recipe, f"{field}.recipe")

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return {"recipe": self.recipe and self.recipe.to_body(), "saved": self.saved}

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> RecipeChoice:
        """Inverse of `to_body`."""
        return RecipeChoice(body["recipe"] and StyleRecipe.from_body(body["recipe"]), body["saved"])


NO_CHOICE: Final = RecipeChoice()
"""No recipe is said."""


@dataclass(frozen=True)
class SavedRecipe:
    """A recipe under a name, shared by regions and callers."""

    id: str
    display_name: str
    style: StyleRecipe
    etag: str


def ensure_recipe(recipe: StyleRecipe, field: str) -> None:
    """Check counts, weights and lengths, not whether the adapters exist; raises InvalidArgument."""
    if len(recipe.adapters) > MAX_ADAPTERS:
        raise InvalidArgument(
            f"the recipe has {len(recipe.adapters)} adapters; at most {MAX_ADAPTERS} are allowed: drop the weakest",
            reason="RECIPE_TOO_LONG",
            field=f"{field}.adapters",
        )
    ensure_text(recipe.prompt_prefix, f"{field}.prompt_prefix", MAX_PREFIX_CHARACTERS)
    ensure_text(recipe.negative_prompt, f"{field}.negative_prompt", MAX_NEGATIVE_CHARACTERS)
    for index, entry in enumerate(recipe.adapters):
        ensure_range(entry.weight, f"{field}.adapters[{index}].weight", -MAX_WEIGHT, MAX_WEIGHT)
