"""`terroir adapter list`, `find` and `watch`: what there is, what a file is, and what changes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.cli.session import resource, session, to_dict
from terroir.common.errors import InvalidArgument

_BOUND: Final = re.compile(r"([a-z][a-z0-9_]{0,62})(>=|<=)(-?[0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?)")


def list_adapters(
    context: typer.Context,
    query: Annotated[
        str, typer.Argument(help="Part of the name, the trigger word or the description.", show_default=False)
    ] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Tag that it must have; may be repeated.")] = None,
    region: Annotated[str, typer.Option(help="Region, such as `CN-ZJ`; what lies below it is found too.")] = "",
    base: Annotated[str, typer.Option(help="Base model.")] = "",
    trigger: Annotated[str, typer.Option(help="Trigger word, exactly.")] = "",
    alias: Annotated[str, typer.Option(help="Alias that it must have, such as `production`.")] = "",
    since: Annotated[str, typer.Option(help="Published at or after this day or time, `2027-02-06`.")] = "",
    until: Annotated[str, typer.Option(help="Published before this day or time.")] = "",
    metric: Annotated[
        list[str] | None, typer.Option(help="Bound on a figure, `style_similarity>=0.7`; may be repeated.")
    ] = None,
    deprecated: Annotated[bool, typer.Option("--deprecated", help="Show deprecated ones too.")] = False,
) -> None:
    """List adapters whose newest version meets every option, with their aliases."""
    conditions = pb.AdapterFilter(
        query=query,
        region=resource("regions", region) if region else "",
        base=resource("bases", base) if base else "",
        tags=tag or [],
        trigger_word=trigger,
        alias=alias,
        published_after=_time(since, "--since") if since else None,
        published_before=_time(until, "--until") if until else None,
        metrics=[_bound(each) for each in metric or []],
        include_deprecated=deprecated,
    )
    filtered = conditions != pb.AdapterFilter()
    with session(context).client() as client:
        session(context).table(
            client.registry.search(conditions),
            [
                ("adapter", lambda a: a.name), ("newest", lambda a: str(a.newest_version)),
                ("aliases", lambda a: ", ".join(f"{x.alias}→{x.version.rsplit('/', 1)[1]}" for x in a.aliases)),
            ],
            empty="no adapter meets all of this; try fewer options, or --deprecated" if filtered
            else "no adapters; train one: terroir train submit CONFIG --adapter NAME",
        )  # fmt: skip


def find(
    context: typer.Context,
    digest: Annotated[
        str,
        typer.Argument(
            metavar="HASH",
            help="SHA-256 of a file or its beginning, a tensor digest, or a hash that a model site shows (AutoV1 to "
            "AutoV3, kohya); 8 to 64 hexadecimal digits.",
            show_default=False,
        ),
    ],
) -> None:
    """Find the versions that a hash belongs to, oldest first."""
    with session(context).client() as client:
        session(context).table(
            client.registry.find(digest),
            [
                ("version", lambda v: v.name), ("base", lambda v: v.base), ("file", lambda v: v.file_digest[:12]),
                ("tensors", lambda v: v.tensor_digest[:12]), ("published", lambda v: v.create_time.ToJsonString()),
            ],
            empty="no version has this hash; it may be of a file that nobody published here",
        )  # fmt: skip


def watch(
    context: typer.Context,
    resume_token: Annotated[
        str, typer.Option("--resume", help="Token of an earlier watch: begin with what it has missed.")
    ] = "",
    count: Annotated[int, typer.Option(min=0, help="End after so many changes; 0 for never.")] = 0,
) -> None:
    """Show changes of adapters, bases, regions and recipes as they happen, a line each, until Ctrl-C.

    With --json each line is one object with the token to resume from.
    """
    this, seen = session(context), 0
    with this.client() as client:
        for message in client.registry.watch(resume_token):
            if not message.HasField("change"):
                continue
            seen += 1
            change = message.change
            if this.as_json:
                this.print_json_line(to_dict(message))
            else:
                kind = pb.ChangeKind.Name(change.kind).removeprefix("CHANGE_KIND_").replace("_", " ").lower()
                this.say(f"{change.time.ToJsonString()} {kind} {change.name}")
            if count and seen >= count:
                return


def _time(text: str, option: str) -> Timestamp:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument(
            f"{option} {text[:40]!r} is no day or time; write 2027-02-06 or 2027-02-06T12:30:00+08:00",
            reason="INVALID_TIME",
        ) from error
    stamp = Timestamp()
    stamp.FromDatetime(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    return stamp


def _bound(text: str) -> pb.MetricBound:
    match = _BOUND.fullmatch(text)
    if match is None:
        raise InvalidArgument(
            f"--metric {text[:80]!r} is no bound; write a name, >= or <=, and a number, such as style_similarity>=0.7",
            reason="INVALID_METRIC_BOUND",
        )
    value = float(match[3])
    return (
        pb.MetricBound(metric=match[1], minimum=value)
        if match[2] == ">="
        else pb.MetricBound(metric=match[1], maximum=value)
    )
