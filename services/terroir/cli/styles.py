"""Style recipes as people type and read them, for `terroir region` and `terroir recipe`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import typer

from terroir._proto.registry.v1 import recipe_pb2
from terroir.cli.session import resource
from terroir.common.errors import InvalidArgument

AdapterOption = Annotated[
    list[str] | None, typer.Option("--adapter", help="`name@alias=weight`; repeat for a stack.", show_default=False)
]
PrefixOption = Annotated[str, typer.Option("--prefix", help="Put before every prompt, such as the trigger words.")]
NegativeOption = Annotated[str, typer.Option("--negative", help="Negative prompt of requests that bring none.")]
SavedOption = Annotated[
    str, typer.Option("--recipe", help="A saved recipe instead of --adapter: its id, see `terroir recipe list`.")
]


def parse_adapter(text: str) -> tuple[str, float]:
    """`jiangnan@production=0.8` to a resource name and a weight; a missing weight is 1.

    Raises InvalidArgument (BAD_WEIGHT) if the weight is not a finite number.
    """
    name, stated, weight = text.partition("=")
    try:
        value = float(weight) if stated else 1.0
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidArgument(
            f"{text!r} has no number after '='; write it as jiangnan@production=0.8", reason="BAD_WEIGHT"
        )
    return resource("adapters", name), value


def style_of(adapters: Iterable[str], prefix: str = "", negative: str = "") -> recipe_pb2.StyleRecipe:
    """A recipe of adapters as typed; raises InvalidArgument (BAD_WEIGHT)."""
    weights = [parse_adapter(text) for text in adapters]
    return recipe_pb2.StyleRecipe(
        adapters=[recipe_pb2.RecipeAdapter(adapter=name, weight=weight) for name, weight in weights],
        prompt_prefix=prefix,
        negative_prompt=negative,
    )


def optional_style(adapters: list[str] | None, prefix: str, negative: str) -> recipe_pb2.StyleRecipe | None:
    """As `style_of`; None where nothing of it was typed."""
    if not (adapters or prefix or negative):
        return None
    return style_of(adapters or [], prefix, negative)


def shown_style(style: recipe_pb2.StyleRecipe) -> str:
    """A recipe on one line, as `parse_adapter` reads it."""
    stack = ", ".join(f"{entry.adapter.removeprefix('adapters/')}={entry.weight:g}" for entry in style.adapters)
    return stack or ("(words only)" if style.prompt_prefix or style.negative_prompt else "(no style)")
