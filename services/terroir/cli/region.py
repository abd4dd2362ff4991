"""`terroir region`: which style a place gets."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from terroir._proto.registry.v1 import recipe_pb2
from terroir._proto.registry.v1 import region_pb2 as pb
from terroir.cli.session import resource, session
from terroir.common.errors import InvalidArgument

app = typer.Typer(no_args_is_help=True, help="Map regions to styles along a tree.")

RegionCode = Annotated[str, typer.Argument(help="Region code, such as `CN-ZJ`.", show_default=False)]


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


def _recipe(region: pb.Region) -> str:
    if not region.HasField("recipe"):
        return "(parent's)"
    return ", ".join(f"{a.adapter.removeprefix('adapters/')}={a.weight:g}" for a in region.recipe.adapters)


@app.command("list")
def list_regions(context: typer.Context) -> None:
    """List regions."""
    with session(context).client() as client:
        session(context).table(
            client.regions.list(),
            [
                ("region", lambda r: r.name), ("name", lambda r: r.display_name), ("parent", lambda r: r.parent),
                ("recipe", _recipe),
            ],
            empty="no regions; make one: terroir region put CODE --adapter NAME=0.8",
        )  # fmt: skip


@app.command()
def put(
    context: typer.Context,
    code: RegionCode,
    adapter: Annotated[list[str] | None, typer.Option(help="`name@alias=weight`; repeat for a stack.")] = None,
    parent: Annotated[str, typer.Option(help="Parent region code.")] = "",
    display_name: Annotated[str, typer.Option(help="Name for people.")] = "",
    prefix: Annotated[str, typer.Option(help="Put before every prompt, such as the trigger words.")] = "",
) -> None:
    """Create or replace a region; without --adapter it takes its parent's style."""
    region = pb.Region(
        name=resource("regions", code), display_name=display_name, parent=resource("regions", parent) if parent else ""
    )
    if adapter:
        weights = [parse_adapter(text) for text in adapter]
        region.recipe.CopyFrom(
            recipe_pb2.StyleRecipe(
                adapters=[recipe_pb2.RecipeAdapter(adapter=name, weight=weight) for name, weight in weights],
                prompt_prefix=prefix,
            )
        )
    with session(context).client() as client:
        stored = client.regions.put(region)
    session(context).show(stored, f"{stored.name}: {_recipe(stored)}")


@app.command()
def resolve(context: typer.Context, code: RegionCode) -> None:
    """Show the style that a region gets, and the chain that was tried."""
    with session(context).client() as client:
        answer = client.regions.resolve(resource("regions", code))
    adapters = ", ".join(f"{a.adapter}={a.weight:g}" for a in answer.recipe.adapters) or "no style"
    session(context).show(answer, f"{adapters} from {answer.source or 'no region'} (tried {' → '.join(answer.tried)})")
