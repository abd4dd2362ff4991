"""`terroir region season`: styles for a time of the year or a campaign."""

from __future__ import annotations

from typing import Annotated

import typer

from terroir._proto.registry.v1 import region_pb2 as pb
from terroir.cli.session import resource, session
from terroir.cli.styles import AdapterOption, NegativeOption, PrefixOption, SavedOption, optional_style, shown_style
from terroir.common.errors import NotFound

app = typer.Typer(
    no_args_is_help=True, help="Styles for a time of the year or a campaign; the first that applies wins."
)

_Code = Annotated[str, typer.Argument(metavar="CODE", help="Region code, such as `CN`.", show_default=False)]
_Id = Annotated[str, typer.Argument(metavar="SEASON", help="Such as `spring-festival`.", show_default=False)]


def described(season: pb.SeasonalRecipe) -> str:
    """A season on one line."""
    days = f"{season.from_date or '…'} to {season.to_date or '…'}" if season.from_date or season.to_date else "always"
    campaign = f", campaign {season.campaign}" if season.campaign else ""
    return f"season {season.id} ({days}{campaign}): {season.saved_recipe or shown_style(season.recipe)}"


@app.command("list")
def list_seasons(context: typer.Context, code: _Code) -> None:
    """List the seasons of a region in the order in which they are tried."""
    with session(context).client() as client:
        session(context).table(
            client.regions.get(resource("regions", code)).seasons,
            [
                ("season", lambda s: s.id), ("from", lambda s: s.from_date), ("to", lambda s: s.to_date),
                ("campaign", lambda s: s.campaign), ("style", lambda s: s.saved_recipe or shown_style(s.recipe)),
            ],
            empty="no seasons; make one: terroir region season set CODE SEASON --from 01-20 --to 02-20 --adapter NAME",
        )  # fmt: skip


@app.command("set")
def set_season(
    context: typer.Context,
    code: _Code,
    season: _Id,
    adapter: AdapterOption = None,
    recipe: SavedOption = "",
    prefix: PrefixOption = "",
    negative: NegativeOption = "",
    from_date: Annotated[
        str, typer.Option("--from", help="First day: `MM-DD` for every year, or `YYYY-MM-DD`.", show_default=False)
    ] = "",
    to_date: Annotated[
        str, typer.Option("--to", help="Last day, in the same form; MM-DD may span New Year.", show_default=False)
    ] = "",
    campaign: Annotated[str, typer.Option(help="Only for requests that name it.", show_default=False)] = "",
    first: Annotated[bool, typer.Option("--first", help="Try it before the region's other seasons.")] = False,
) -> None:
    """Add a season to a region, or replace the one of that name where it stands."""
    wanted = pb.SeasonalRecipe(
        id=season,
        from_date=from_date,
        to_date=to_date,
        campaign=campaign,
        recipe=optional_style(adapter, prefix, negative),
        saved_recipe=resource("recipes", recipe) if recipe else "",
    )
    with session(context).client() as client:
        region = client.regions.get(resource("regions", code))
        kept = list(region.seasons)
        at = next((index for index, entry in enumerate(kept) if entry.id == season), None)
        if at is not None:
            kept.pop(at)
        kept.insert(0 if first else len(kept) if at is None else at, wanted)
        del region.seasons[:]
        region.seasons.extend(kept)
        stored = client.regions.put(region)
    session(context).show(stored, f"{stored.name}: {described(wanted)}")


@app.command()
def remove(context: typer.Context, code: _Code, season: _Id) -> None:
    """Remove a season from a region."""
    with session(context).client() as client:
        region = client.regions.get(resource("regions", code))
        kept = [entry for entry in region.seasons if entry.id != season]
        if len(kept) == len(region.seasons):
            known = ", ".join(entry.id for entry in kept) or "none"
            raise NotFound(f"{region.name} has no season {season!r}; it has: {known}", reason="SEASON_NOT_FOUND")
        del region.seasons[:]
        region.seasons.extend(kept)
        stored = client.regions.put(region)
    session(context).show(stored, f"{stored.name}: {len(kept)} seasons")
