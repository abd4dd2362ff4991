"""`terroir adapter alias | rollback | unalias | deprecate | audit`: what moves of an adapter, and who moved it."""

from __future__ import annotations

from typing import Annotated

import typer

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.cli.session import resource, session
from terroir.common.errors import InvalidArgument

_AdapterName = Annotated[str, typer.Argument(help="Adapter, such as `jiangnan`.", show_default=False)]
_AliasName = Annotated[str, typer.Argument(metavar="ALIAS", help="Such as `production`.", show_default=False)]
_Reason = Annotated[str, typer.Option(help="Why; kept in the history.", show_default=False)]


def alias(
    context: typer.Context,
    name: _AdapterName,
    alias_name: _AliasName,
    version: Annotated[int, typer.Argument(help="Version number that it shall point at.", show_default=False)],
    reason: _Reason,
    canary: Annotated[
        str, typer.Option(help="A share of the callers gets another version first: `13=5` is version 13 for 5 %.")
    ] = "",
) -> None:
    """Point an alias at a version, all callers at once or some of them first.

    A caller stays on its side of a canary by the sticky key that it sends. Setting the alias without --canary ends it.
    """
    adapter = resource("adapters", name)
    with session(context).client() as client:
        moved = client.registry.set_alias(
            adapter, alias_name, f"{adapter}/versions/{version}", reason=reason, canary=_canary(adapter, canary)
        )
    session(context).show(moved, _told(moved))


def rollback(context: typer.Context, name: _AdapterName, alias_name: _AliasName, reason: _Reason) -> None:
    """Point an alias at the version before and end its canary; again goes one further back."""
    with session(context).client() as client:
        moved = client.registry.rollback_alias(resource("adapters", name), alias_name, reason=reason)
    session(context).show(moved, _told(moved))


def unalias(context: typer.Context, name: _AdapterName, alias_name: _AliasName, reason: _Reason) -> None:
    """Remove an alias; its history stays."""
    adapter = resource("adapters", name)
    with session(context).client() as client:
        client.registry.delete_alias(adapter, alias_name, reason=reason)
    session(context).show(pb.DeleteAliasResponse(), f"{adapter}@{alias_name} is removed")


def deprecate(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Version, such as `jiangnan/versions/3`.", show_default=False)],
    reason: _Reason,
    for_cause: Annotated[
        bool, typer.Option("--for-cause", help="Stop serving it at once, even where aliases point at it.")
    ] = False,
    replacement: Annotated[str, typer.Option(help="Version to use instead, such as `jiangnan/versions/4`.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take an earlier deprecation back.")] = False,
) -> None:
    """Mark a version as no longer to be used, or take that back with --undo; it stays readable."""
    with session(context).client() as client:
        version = client.registry.deprecate(
            resource("adapters", name), reason=reason, for_cause=for_cause,
            replacement=resource("adapters", replacement) if replacement else "", reinstate=undo,
        )  # fmt: skip
    state = "deprecated" if version.HasField("deprecation") else "in use again"
    session(context).show(version, f"{version.name} is {state}")


def audit(context: typer.Context, name: _AdapterName) -> None:
    """List what was changed by whom and why, newest first."""
    with session(context).client() as client:
        session(context).table(
            client.registry.audit(resource("adapters", name)),
            [
                ("time", lambda e: e.time.ToJsonString()), ("who", lambda e: e.actor), ("what", lambda e: e.action),
                ("of", lambda e: e.name), ("from", lambda e: e.before), ("to", lambda e: e.after),
                ("why", lambda e: e.reason),
            ],
            empty="nothing was changed yet",
        )  # fmt: skip


def _canary(adapter: str, text: str) -> pb.Canary | None:
    if not text:
        return None
    number, _, percent = text.partition("=")
    try:
        return pb.Canary(version=f"{adapter}/versions/{int(number)}", percent=float(percent))
    except ValueError as error:
        raise InvalidArgument(
            f"--canary {text!r} is not VERSION=PERCENT, such as 13=5", reason="INVALID_CANARY"
        ) from error


def _told(moved: pb.Alias) -> str:
    canary = f", {moved.canary.percent:g} % get {moved.canary.version}" if moved.HasField("canary") else ""
    return f"{moved.adapter}@{moved.alias} → {moved.version}{canary}"
