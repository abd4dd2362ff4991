"""`terroir base`: the base models that adapters bind to."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.cli.session import resource, session
from terroir.client.base_source import find_base
from terroir.lora.base_folder import weight_bytes

app = typer.Typer(no_args_is_help=True, help="Base models: what adapters are trained on and bound to, by digest.")

_BaseName = Annotated[str, typer.Argument(help="Base, such as `sd15`.", show_default=False)]
_MEGABYTE: Final = 1_000_000


@app.command()
def register(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name that it shall have, such as `sd15`.", show_default=False)],
    source: Annotated[
        str,
        typer.Argument(
            help="A diffusers folder, such as `/models/sd15`, or a pinned hub revision, `hub:OWNER/NAME@COMMIT` with "
            "the commit's 40 digits; it is taken from the local hub cache and fetched where it is missing there.",
            show_default=False,
        ),
    ],
) -> None:
    """Register a base model; only digests and shapes are sent, the weights stay where they are.

    Reads every component's weight file once, about a second a gigabyte. The same content under the same name changes
    nothing; other content is refused, since adapters are bound to what is registered.
    """
    found = find_base(source)
    with session(context).client() as client, session(context).progress() as bar:
        client.bases.list()  # a registry that is not there is told before the hashing, not after
        task = bar.add_task("hashing, MB", total=round(weight_bytes(found.folder) / _MEGABYTE))
        base = client.bases.register(
            resource("bases", name), found, lambda count: bar.update(task, advance=count / _MEGABYTE)
        )
    session(context).show(base, *_told(base))


@app.command("list")
def list_bases(context: typer.Context) -> None:
    """List the base models that adapters bind to."""
    with session(context).client() as client:
        session(context).table(
            client.bases.list(),
            [
                ("base", lambda b: b.name), ("family", lambda b: b.family), ("predicts", lambda b: b.prediction_type),
                ("layers", lambda b: str(b.adaptable_layers)), ("pixels", lambda b: str(b.native_resolution)),
                ("digest", lambda b: b.digest[:12]), ("by", lambda b: b.actor),
            ],
            empty="no bases; register one: terroir base register NAME FOLDER",
        )  # fmt: skip


@app.command()
def show(context: typer.Context, name: _BaseName) -> None:
    """Show a base model and the digests of its parts."""
    with session(context).client() as client:
        base = client.bases.get(resource("bases", name))
    session(context).show(base, *_told(base))


def _told(base: pb.Base) -> tuple[str, ...]:
    return (
        f"{base.name}: {base.family}, predicts {base.prediction_type}, {base.native_resolution} pixels, "
        f"{base.adaptable_layers} layers",
        f"digest {base.digest}",
        *(f"{component} {digest}" for component, digest in sorted(base.component_digests.items())),
        f"registered by {base.actor} from {base.source or 'a folder'} at {base.create_time.ToJsonString()}",
    )
