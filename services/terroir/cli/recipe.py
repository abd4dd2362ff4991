"""`terroir recipe`: stacks of adapters under a name, for regions to share."""

from __future__ import annotations

from typing import Annotated

import typer

from terroir._proto.registry.v1 import recipe_pb2
from terroir.cli.session import resource, session
from terroir.cli.styles import AdapterOption, NegativeOption, PrefixOption, shown_style, style_of

app = typer.Typer(no_args_is_help=True, help="Save a stack of adapters under a name, for regions to share.")

RecipeId = Annotated[str, typer.Argument(help="Recipe, such as `tea-houses`.", show_default=False)]


@app.command("list")
def list_recipes(context: typer.Context) -> None:
    """List saved recipes."""
    with session(context).client() as client:
        session(context).table(
            client.recipes.list(),
            [
                ("recipe", lambda r: r.name), ("name", lambda r: r.display_name),
                ("style", lambda r: shown_style(r.style)), ("prefix", lambda r: r.style.prompt_prefix),
                ("negative", lambda r: r.style.negative_prompt),
            ],
            empty="no saved recipes; make one: terroir recipe put ID --adapter NAME=0.8",
        )  # fmt: skip


@app.command()
def put(
    context: typer.Context,
    recipe: RecipeId,
    adapter: AdapterOption = None,
    display_name: Annotated[str, typer.Option(help="Name for people.")] = "",
    prefix: PrefixOption = "",
    negative: NegativeOption = "",
) -> None:
    """Create or replace a recipe; regions that name it change with it."""
    wanted = recipe_pb2.Recipe(
        name=resource("recipes", recipe), display_name=display_name, style=style_of(adapter or [], prefix, negative)
    )
    with session(context).client() as client:
        stored = client.recipes.put(wanted)
    session(context).show(stored, f"{stored.name}: {shown_style(stored.style)}")


@app.command()
def show(context: typer.Context, recipe: RecipeId) -> None:
    """Show one recipe."""
    with session(context).client() as client:
        found = client.recipes.get(resource("recipes", recipe))
    session(context).show(
        found,
        f"{found.name} {found.display_name}".strip(),
        f"adapters: {shown_style(found.style)}",
        f"prefix: {found.style.prompt_prefix or 'none'}",
        f"negative prompt: {found.style.negative_prompt or 'none'}",
    )


@app.command()
def delete(context: typer.Context, recipe: RecipeId) -> None:
    """Remove a recipe that no region names."""
    name = resource("recipes", recipe)
    with session(context).client() as client:
        client.recipes.delete(name)
    session(context).done({"deleted": name}, f"{name} is removed")
