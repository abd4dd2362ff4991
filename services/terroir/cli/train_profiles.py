"""`terroir train profiles`: presets that a run may start from, and why they are what they are."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from terroir.cli.session import session
from terroir.common.errors import InvalidArgument


def profiles(
    context: typer.Context,
    show: Annotated[str, typer.Option(help="Print the keys of this profile as YAML, each with its reason.")] = "",
) -> None:
    """List the profiles: presets by hardware and by data, of which a run may start from one each."""
    from terroir.training.config.profile_text import profile_yaml
    from terroir.training.config.profiles import PROFILES
    from terroir.training.config.value_errors import nearest_of

    this = session(context)
    if show:
        if show not in PROFILES:
            raise InvalidArgument(
                f"unknown profile {show[:80]!r}; the nearest is {nearest_of(show, PROFILES)!r} "
                "(all: terroir train profiles)",
                reason="PROFILE_UNKNOWN",
            )
        profile = PROFILES[show]
        this.done({"name": profile.name, "kind": profile.kind, "keys": profile.values}, profile_yaml(profile).rstrip())
        return
    if this.as_json:
        this.print_json(
            [{"name": p.name, "kind": p.kind, "summary": p.summary, "keys": p.values} for p in PROFILES.values()]
        )
        return
    table = Table("profile", "by", "when to take it", box=None, pad_edge=False)
    for profile in PROFILES.values():
        table.add_row(profile.name, profile.kind, profile.summary)
    this.console.print(table)
    this.say("keys and reasons of one: terroir train profiles --show NAME; in a file: profile: [gpu-24gb, clean-set]")
