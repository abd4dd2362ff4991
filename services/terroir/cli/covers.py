"""`terroir covers`: pictures that are ready before anybody asks for them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from terroir._proto.inference.v1 import cover_pb2 as pb
from terroir.cli.content_file import read_contents
from terroir.cli.generate import one_of, parse_size
from terroir.cli.session import Session, resource, session
from terroir.client import Cover, Rung
from terroir.client.cover_values import FORMATS
from terroir.client.covers import STATES
from terroir.client.pictures import ASPECT_RATIOS, PRIORITIES
from terroir.common.errors import InvalidArgument, Unavailable

app = typer.Typer(
    no_args_is_help=True,
    help="Pictures that are ready before anybody asks for them: prepare them for regions, get the best that is there. "
    "What `get` misses of prepared contents is drawn for those who ask next; see docs/covers.md.",
)

_INTERRUPTED: Final = 130
"""Exit status after Ctrl-C, as shells have it."""
_TIMEOUT_SECONDS: Final = 5.0
"""A person waits longer than a page does."""
Size = Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels, multiples of 8; default: the base's own.")]
Aspect = Annotated[str, typer.Option(help="Shape instead of a size: 1:1, 16:9 or 3:4.")]
Format = Annotated[str, typer.Option("--format", help="webp, png or jpeg.")]
PreparationName = Annotated[str, typer.Argument(help="Preparation, such as `preparations/p3f2a…`.", show_default=False)]


@app.command()
def get(
    context: typer.Context,
    keys: Annotated[list[str], typer.Argument(metavar="KEY…", help="Keys of contents.", show_default=False)],
    region: Annotated[str, typer.Option(help="Region code; without one the base's own look.")] = "",
    count: Annotated[int, typer.Option(help="Variants of each content, 1 to 16.")] = 1,
    size: Size = "0x0",
    aspect: Aspect = "",
    file_format: Format = "webp",
    sticky: Annotated[str, typer.Option(help="Who looks: the same key gets the same side of a canary.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures.")] = None,
) -> None:
    """Show the best covers that are there, and which rung answered; what is missing is drawn later.

    Rungs: `region` wears the region's style, `parent` that of a region around it, `base` none, `default` is your own
    picture because there is no cover.
    """
    this = session(context)
    width, height = parse_size(size)
    one_of(ASPECT_RATIOS, aspect, "aspect")
    one_of(FORMATS, file_format, "format")
    with this.client() as client:
        covers = client.covers.get(
            keys, region, count=count, sticky_key=sticky, width=width, height=height, aspect=aspect,
            file_format=file_format, with_data=out is not None, timeout=_TIMEOUT_SECONDS,
            hedge_after_seconds=_TIMEOUT_SECONDS,
        )  # fmt: skip
        if covers and covers[0].unanswered:
            raise Unavailable(
                f"no server answered within {_TIMEOUT_SECONDS:g} s; callers show their own pictures meanwhile. Is "
                "inference running?",
                reason=covers[0].unanswered,
            )
        if out is not None:
            # An answer carries 4 MiB; what did not fit is read by itself.
            covers = [
                cover if cover.data or cover.rung is Rung.DEFAULT
                else replace(cover, data=client.covers.read(cover.picture))
                for cover in covers
            ]  # fmt: skip
    files = _write(covers, out) if out is not None else {}
    if this.as_json:
        this.print_json(
            [{**_told(cover), "file": str(files[at]) if at in files else ""} for at, cover in enumerate(covers)]
        )
        return
    this.console.print(_table(covers))
    for path in files.values():
        this.say(f"wrote {path}")


@app.command()
def prepare(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help="Contents: YAML or JSON (`key: prompt`, or a list with key, prompt and negative_prompt), CSV with "
            "these columns, or text with a line `key<TAB>prompt` each.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ],
    region: Annotated[
        list[str] | None, typer.Option(help="Region code, such as CN-ZJ; repeat for several.", show_default=False)
    ] = None,
    base: Annotated[
        bool, typer.Option("--base", help="Also the base's own look, which answers where no style does.")
    ] = False,
    variants: Annotated[int, typer.Option(help="Variants of each, 1 to 16; 0: the server's default.")] = 0,
    size: Size = "0x0",
    aspect: Aspect = "",
    file_format: Format = "webp",
    priority: Annotated[
        str, typer.Option(help=f"Which of several preparations goes first: {', '.join(PRIORITIES)}.")
    ] = "normal",
    hours: Annotated[float, typer.Option(help="Draw nothing more after so many hours; 0: until it is done.")] = 0.0,
    max_pictures: Annotated[
        int, typer.Option(help="Draw at most so many, those that are not chosen included; 0: no bound.")
    ] = 0,
    redraw: Annotated[bool, typer.Option("--redraw", help="Draw anew what is there already.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and show the progress.")] = False,
) -> None:
    """Have covers drawn for regions, in rows that nobody else uses; it goes on when you leave.

    A content that is known keeps its covers; with another prompt they are stale until new ones are drawn.
    """  # fmt: skip
    this = session(context)
    contents = read_contents(file)
    regions = [*(region or []), *([""] if base else [])]
    if not regions:
        raise InvalidArgument(
            "say where the covers are for: --region CN-ZJ, repeated for several, or --base", reason="REGION_MISSING"
        )
    width, height = parse_size(size)
    one_of(ASPECT_RATIOS, aspect, "aspect")
    one_of(FORMATS, file_format, "format")
    one_of(PRIORITIES, priority, "priority")
    with this.client() as client:
        begun = client.covers.prepare(
            contents, regions, variants=variants, width=width, height=height, aspect=aspect, file_format=file_format,
            priority=priority, deadline=datetime.now(UTC) + timedelta(hours=hours) if hours else None,
            max_pictures=max_pictures, redraw=redraw,
        )  # fmt: skip
        if not watch:
            this.show(begun, f"preparing {_sets(begun)}: {begun.name}; look: {_come_back(begun)}")
            return
        this.say(f"preparing {_sets(begun)}: {begun.name}")
        ended = _follow(this, begun, client.covers.watch(begun.name))
    _finish(this, ended)


@app.command()
def preparations(context: typer.Context) -> None:
    """List preparations, newest first."""
    this = session(context)
    with this.client() as client:
        this.table(
            client.covers.preparations(),
            [
                ("preparation", lambda p: p.name), ("state", lambda p: STATES.get(p.state, "?")),
                ("sets", lambda p: f"{p.drawn + p.kept + p.failed}/{p.total}"), ("failed", lambda p: str(p.failed)),
                ("pictures", lambda p: str(p.pictures)), ("begun", lambda p: p.create_time.ToJsonString()),
                ("by", lambda p: p.creator),
            ],
            empty="no preparations; begin one: terroir covers prepare FILE --region CODE",
        )  # fmt: skip


@app.command()
def show(context: typer.Context, name: PreparationName) -> None:
    """Show one preparation: how far it is, and what could not be drawn."""
    this = session(context)
    with this.client() as client:
        found = client.covers.preparation(resource("preparations", name))
    this.show(found, *_lines(found))


@app.command()
def watch(context: typer.Context, name: PreparationName) -> None:
    """Follow a preparation until it ends."""
    this = session(context)
    with this.client() as client:
        found = client.covers.preparation(resource("preparations", name))
        ended = _follow(this, found, client.covers.watch(found.name))
    _finish(this, ended)


@app.command()
def cancel(context: typer.Context, name: PreparationName) -> None:
    """End a preparation; covers that are drawn stay."""
    this = session(context)
    with this.client() as client:
        found = client.covers.cancel(resource("preparations", name))
    this.show(found, f"{found.name} {STATES.get(found.state, '?')}: what is drawn stays")


@app.command()
def invalidate(
    context: typer.Context,
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY…]", help="Keys of contents; none: all.", show_default=False)
    ] = None,
    region: Annotated[
        str, typer.Option(help="Region whose covers are wrong, with all regions that wear its style; none: all.")
    ] = "",
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Never show them again; otherwise they are shown until redrawn.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; it is kept with who said it.")] = "",
) -> None:
    """Say that covers are no longer right; every server knows within a second, and who asks next has them redrawn."""
    this = session(context)
    with this.client() as client:
        client.covers.invalidate(keys or [], region, withdraw=withdraw, reason=reason)
    what = " ".join([f"{len(keys)} contents" if keys else "all contents", *([f"in {region}"] if region else [])])
    this.done(
        {"contents": keys or [], "region": region, "withdrawn": withdraw},
        f"covers of {what} are {'shown no more' if withdraw else 'stale'}; they are redrawn as they are asked for",
    )


def _follow(
    this: Session, preparation: pb.CoverPreparation, states: Iterable[pb.CoverPreparation]
) -> pb.CoverPreparation:
    """Show each state on a bar until the last; Ctrl-C leaves it running and says how to come back."""
    try:
        with this.progress() as bar:
            task = bar.add_task("preparing", total=preparation.total)
            for preparation in states:
                failed = f", {preparation.failed} failed" if preparation.failed else ""
                done = preparation.drawn + preparation.kept + preparation.failed
                bar.update(
                    task, completed=done, total=preparation.total, description=f"{preparation.pictures} drawn{failed}"
                )
    except KeyboardInterrupt:
        this.say(f"\n{preparation.name} goes on without you; come back: {_come_back(preparation)}")
        raise typer.Exit(_INTERRUPTED) from None
    return preparation


def _finish(this: Session, ended: pb.CoverPreparation) -> None:
    """Say what came of it; status 1 where something is missing."""
    this.show(ended, *_lines(ended))
    if ended.failed or ended.state == pb.PREPARATION_STATE_CUT_SHORT:
        raise typer.Exit(1)


def _lines(found: pb.CoverPreparation) -> list[str]:
    missing = found.total - found.drawn - found.kept - found.failed
    regions = ", ".join(name.removeprefix("regions/") or "(base)" for name in found.regions[:8])
    more = f" and {len(found.regions) - 8} more" if len(found.regions) > 8 else ""
    return [
        f"{found.name} {STATES.get(found.state, '?')}" + (f": {found.cut_short}" if found.cut_short else ""),
        f"  {found.contents} contents × {len(found.regions)} regions ({regions}{more}), {found.variants} variants each",
        f"  {found.drawn} drawn, {found.kept} were there, {found.failed} failed, {missing} to go; {found.pictures} "
        "pictures",
        *(f"  {each.content} in {each.region or '(base)'}: [{each.reason}] {each.message}" for each in found.failures),
    ]


def _sets(found: pb.CoverPreparation) -> str:
    return f"{found.total} sets of {found.variants}"


def _come_back(found: pb.CoverPreparation) -> str:
    return f"terroir covers watch {found.name}"


def _told(cover: Cover) -> dict[str, Any]:
    return {name: value for name, value in asdict(cover).items() if name not in ("data", "unanswered")}


def _table(covers: Iterable[Cover]) -> Table:
    table = Table(
        "content", "variant", "rung", "style of", "stale", "lacks", "filling", "picture", box=None, pad_edge=False
    )
    for cover in covers:
        table.add_row(
            cover.content, str(cover.variant), cover.rung, cover.source.removeprefix("regions/"),
            f"{cover.stale_seconds:.0f} s" if cover.stale else "", cover.lack.replace("_", " "),
            "yes" if cover.filling else "", cover.picture,
        )  # fmt: skip
    return table


def _write(covers: Iterable[Cover], folder: Path) -> dict[int, Path]:
    """Files by position; those on the rung default have none."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        at: cover.save(folder / f"{_stem(cover.content)}-{cover.variant}.{cover.format}")
        for at, cover in enumerate(covers)
        if cover.data
    }


def _stem(key: str) -> str:
    """A key as a file name: keys are anybody's words, and no two of them may share a file."""
    plain = re.sub(r"[^\w-]+", "-", key)[:80]
    return plain if plain == key else f"{plain}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
