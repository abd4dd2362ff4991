"""`terroir region`: which style a place gets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from terroir._proto.registry.v1 import region_pb2 as pb
from terroir.cli import season
from terroir.cli.region_file import bring_in, read_entries
from terroir.cli.region_forest import Node, forest
from terroir.cli.session import resource, session, to_dict
from terroir.cli.styles import (
    AdapterOption,
    NegativeOption,
    PrefixOption,
    SavedOption,
    optional_style,
    shown_style,
)
from terroir.client import Client
from terroir.common.errors import InvalidArgument, NotFound

app = typer.Typer(no_args_is_help=True, help="Map regions to styles along a tree.")
app.add_typer(season.app, name="season")

RegionCode = Annotated[
    str, typer.Argument(help="Region code, such as `CN-ZJ`, `330106` or `x-jiangnan`.", show_default=False)
]


def _style(region: pb.Region) -> str:
    own = region.saved_recipe or (shown_style(region.recipe) if region.HasField("recipe") else "(inherits)")
    return own + (f" and {_count(region)}" if region.seasons else "")


def _count(region: pb.Region) -> str:
    return "1 season" if len(region.seasons) == 1 else f"{len(region.seasons)} seasons"


def existing(client: Client, name: str) -> pb.Region | None:
    """The region as it is, if it is."""
    try:
        return client.regions.get(name)
    except NotFound:
        return None


@app.command("list")
def list_regions(context: typer.Context) -> None:
    """List regions."""
    with session(context).client() as client:
        session(context).table(
            client.regions.list(),
            [
                ("region", lambda r: r.name), ("name", lambda r: r.display_name), ("parent", lambda r: r.parent),
                ("style", _style),
            ],
            empty="no regions; make one: terroir region put CODE --adapter NAME=0.8",
        )  # fmt: skip


@app.command()
def tree(context: typer.Context) -> None:
    """Draw all regions as a tree: each lies in its parent, or where its code's spelling says."""
    with session(context).client() as client:
        roots = forest(client.regions.list())
    if session(context).as_json:
        session(context).print_json([_as_dict(root) for root in roots])
        return
    if not roots:
        session(context).say("no regions; make one: terroir region put CODE --adapter NAME=0.8")
    for root in roots:
        session(context).console.print(_drawn(root))


def _as_dict(node: Node) -> dict[str, object]:
    return {"region": to_dict(node.region), "children": [_as_dict(child) for child in node.children]}


def _drawn(node: Node) -> Tree:
    region = node.region
    label = Text.assemble(
        (region.name.removeprefix("regions/"), "bold"),
        f" {region.display_name}".rstrip(),
        (f"  {_style(region)}", "dim"),
    )
    drawn = Tree(label)
    for child in node.children:
        drawn.children.append(_drawn(child))
    return drawn


@app.command()
def get(context: typer.Context, code: RegionCode) -> None:
    """Show one region with its seasons."""
    with session(context).client() as client:
        found = client.regions.get(resource("regions", code))
    session(context).show(
        found,
        f"{found.name} {found.display_name}".strip(),
        f"parent: {found.parent or '(what the spelling of its code says)'}",
        f"style: {_style(found)}",
        *(season.described(entry) for entry in found.seasons),
    )


@app.command()
def put(
    context: typer.Context,
    code: RegionCode,
    adapter: AdapterOption = None,
    recipe: SavedOption = "",
    parent: Annotated[str, typer.Option(help="Parent region code; default: what the spelling of CODE says.")] = "",
    display_name: Annotated[str, typer.Option(help="Name for people.")] = "",
    prefix: PrefixOption = "",
    negative: NegativeOption = "",
) -> None:
    """Create or replace a region; without --adapter and --recipe it takes its parent's style. Seasons stay."""
    name = resource("regions", code)
    with session(context).client() as client:
        before = existing(client, name)
        stored = client.regions.put(
            pb.Region(
                name=before.name if before is not None else name,
                display_name=display_name,
                parent=resource("regions", parent) if parent else "",
                recipe=optional_style(adapter, prefix, negative),
                saved_recipe=resource("recipes", recipe) if recipe else "",
                seasons=before.seasons if before is not None else [],
                etag=before.etag if before is not None else "",
            )
        )
    session(context).show(stored, f"{stored.name}: {_style(stored)}")


@app.command()
def delete(context: typer.Context, code: RegionCode) -> None:
    """Remove a region that no other names as parent."""
    name = resource("regions", code)
    with session(context).client() as client:
        client.regions.delete(name)
    session(context).done({"deleted": name}, f"{name} is removed")


@app.command()
def resolve(
    context: typer.Context,
    code: RegionCode,
    date: Annotated[str, typer.Option(help="Day, YYYY-MM-DD; default: today, UTC.", show_default=False)] = "",
    campaign: Annotated[str, typer.Option(help="Campaign, such as `double-eleven`.", show_default=False)] = "",
) -> None:
    """Show the style that a region gets, and the chain that was tried."""
    with session(context).client() as client:
        answer = client.regions.resolve(resource("regions", code), date=date, campaign=campaign)
    style = ", ".join(f"{a.adapter}={a.weight:g}" for a in answer.recipe.adapters) or "no style"
    source = " ".join(
        (answer.source or "no region", *([f"season {answer.season}"] if answer.season else ()),
         *([f"by {answer.saved_recipe}"] if answer.saved_recipe else ()))
    )  # fmt: skip
    session(context).show(answer, f"{style} from {source} (tried {' → '.join(answer.tried)})")


@app.command("import")
def import_regions(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="YAML or JSON with `recipes` and `regions`; see docs/regions.md.", show_default=False)
    ],
) -> None:
    """Put all recipes and regions of a file, parents first, and say of each line what became of it.

    What is refused does not keep the others out; the exit status is then 1.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read {file}: {error}", reason="FILE_MISSING") from error
    entries = read_entries(text, str(file))
    with session(context).client() as client, session(context).progress() as bar:
        verdicts = [bring_in(client, entry) for entry in bar.track(entries, total=len(entries), description="regions")]
    refused = [verdict for verdict in verdicts if verdict.reason]
    if session(context).as_json:
        session(context).print_json([verdict.to_dict() for verdict in verdicts])
    for verdict in verdicts:
        session(context).say(f"{file}:{verdict.line}: {verdict}")
    session(context).say(f"{len(verdicts) - len(refused)} put, {len(refused)} refused")
    if refused:
        raise typer.Exit(1)
