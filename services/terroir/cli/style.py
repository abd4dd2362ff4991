"""`terroir style`: one command from a folder of pictures to a judged version; it goes on without you."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import Progress, TaskID

from terroir._proto.training.v1 import style_pb2 as pb
from terroir.cli.session import Session, resource, session
from terroir.client.styles import PHASES, STATES, version_of

app = typer.Typer(
    no_args_is_help=True,
    help="Register a style: pictures, a region and a configuration in, a judged version under `staging` out.",
)

_INTERRUPTED: Final = 130
"""Exit status after Ctrl-C, as shells have it."""
_OF_PICTURES: Final = (pb.REGISTRATION_PHASE_IMPORTING, pb.REGISTRATION_PHASE_CAPTIONING)
RegistrationName = Annotated[
    str,
    typer.Argument(help="Registration, or a style for its newest, such as `ink`.", show_default=False),
]


@app.command()
def register(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="Name of the style and of its adapter, such as `ink`.")],
    region: Annotated[str, typer.Option(help="Region code, such as CN-ZJ; it must be in the region tree.")],
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of pictures, with `.txt` sidecars or `metadata.csv`.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of the run (docs/training-config.md).")] = None,
    rights: Annotated[str, typer.Option(help="Statement that you may train on these pictures.")] = "",
    trigger: Annotated[str, typer.Option(help="Word that calls the style up in prompts.")] = "",
    license_id: Annotated[str, typer.Option("--license", help="Licence of the pictures.")] = "",
    dataset: Annotated[
        str, typer.Option(help="Dataset for the pictures; without FOLDER one that has them. Default: that of the name.")
    ] = "",
    import_source: Annotated[
        str, typer.Option(help="Instead of FOLDER: a place with pictures that an operator configured.")
    ] = "",
    assign_region: Annotated[
        bool, typer.Option("--assign-region", help="Make the style the region's own recipe once it is staged.")
    ] = False,
    new_version: Annotated[
        bool, typer.Option("--new-version", help="Make a further version of a style that exists.")
    ] = False,
    watch: Annotated[bool, typer.Option(help="Stay and show the progress.")] = True,
) -> None:
    """Upload pictures and register a style; it goes on when you leave."""
    this = session(context)
    with this.client() as client:
        with this.progress() as bar:
            task = bar.add_task("uploading", total=None, visible=folder is not None)
            try:
                begun = client.styles.register(
                    name, region=region, config=config or "", folder=folder, dataset=dataset,
                    import_source=import_source, rights=rights, trigger_word=trigger, license_id=license_id,
                    assign_region=assign_region, new_version=new_version,
                    on_upload=lambda done, total: bar.update(task, completed=done, total=total),
                )  # fmt: skip
            except KeyboardInterrupt:
                this.say("\nstopped before the registration began; what arrived stays, so run the same command again")
                raise typer.Exit(_INTERRUPTED) from None
        if not watch:
            this.show(begun.registration, f"registering {begun.name}; look: {_come_back(begun.registration)}")
            return
        this.say(f"registering {begun.name}")
        ended = _follow(this, begun.registration, begun.watch())
    finish(this, ended)


@app.command()
def watch(context: typer.Context, name: RegistrationName) -> None:
    """Follow a registration until it ends."""
    this = session(context)
    with this.client() as client:
        found = client.styles.operation(_registration(name))
        ended = _follow(this, found.registration, found.watch())
    finish(this, ended)


@app.command("list")
def list_registrations(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Style; all without one.")] = "",
) -> None:
    """List registrations, newest first."""
    with session(context).client() as client:
        session(context).table(
            client.styles.list(name),
            [
                ("registration", lambda r: r.name), ("state", lambda r: STATES.get(r.state, "?")),
                ("phase", lambda r: PHASES.get(r.phase, "?")), ("region", lambda r: r.region.removeprefix("regions/")),
                ("version", lambda r: r.adapter_version), ("by", lambda r: r.creator),
            ],
            empty="no styles; register one: terroir style register FOLDER --name NAME --region CODE --rights …",
        )  # fmt: skip


@app.command()
def show(context: typer.Context, name: RegistrationName) -> None:
    """Show one registration: phases, pictures, job, result."""
    with session(context).client() as client:
        found = client.styles.get(_registration(name))
    standing = f"{STATES.get(found.state, '?')} ({PHASES.get(found.phase, '?')})"
    session(context).show(
        found,
        f"{found.name} {standing}, {found.region}, by {found.creator}",
        *(f"  {begun.time.ToJsonString()} {PHASES.get(begun.phase, '?')}" for begun in found.phases),
        f"pictures: {found.dataset_version or found.dataset}",
        f"job: {found.job.name or '(none yet)'}",
        f"result: {found.adapter_version or f'(none yet) {found.adapter}'}{_figures(found)}",
        *([f"waits: {found.waiting_for}"] if found.waiting_for else []),
        *([f"error: [{found.error.reason}] {found.error.message}"] if found.HasField("error") else []),
    )


@app.command()
def cancel(context: typer.Context, name: RegistrationName) -> None:
    """Ask a registration to end, and its job with it; pictures and captions stay."""
    with session(context).client() as client:
        wanted = _registration(name)
        if wanted.count("/") == 1:
            wanted = client.styles.get(wanted).name
        found = client.styles.cancel(wanted)
    said = (
        f"it ends in a moment: {_come_back(found)}" if found.state == pb.REGISTRATION_STATE_RUNNING else "it had ended"
    )
    session(context).show(found, f"{found.name} {STATES.get(found.state, '?')}: {said}")


def finish(this: Session, ended: pb.StyleRegistration) -> None:
    """Say what came of it; raises FailedPrecondition with the step's own reason, and Cancelled."""
    version = version_of(ended)
    short = ended.adapter.removeprefix("adapters/")
    assigned = f" and {ended.region} draws with it" if ended.assign_region else ""
    this.show(
        ended,
        f"{version} is staged{assigned}{_figures(ended)}",
        f'draw: terroir generate "a red teapot by a river" --adapter {short}@staging',
    )


def _follow(
    this: Session, registration: pb.StyleRegistration, states: Iterable[pb.StyleRegistration]
) -> pb.StyleRegistration:
    """Show each state on a bar until the last; Ctrl-C leaves it running and says how to come back."""
    try:
        with this.progress() as bar:
            task = bar.add_task(registration.adapter.removeprefix("adapters/"), total=None)
            for registration in states:
                _show(bar, task, registration)
    except KeyboardInterrupt:
        this.say(f"\n{registration.name} goes on without you; come back: {_come_back(registration)}")
        raise typer.Exit(_INTERRUPTED) from None
    return registration


def _show(bar: Progress, task: TaskID, registration: pb.StyleRegistration) -> None:
    style, phase = registration.adapter.removeprefix("adapters/"), PHASES.get(registration.phase, "?")
    done, total, more = 0, 0, ""
    if registration.waiting_for:
        more = f" (waits: {registration.waiting_for[:60]})"
    elif registration.phase in _OF_PICTURES:
        done, total = registration.pictures.done, registration.pictures.total
    elif registration.HasField("job"):
        progress = registration.job.progress
        done, total, more = progress.step, progress.total_steps, f" loss {progress.loss:.4f}" if progress.step else ""
    bar.update(task, completed=done, total=total or None, description=f"{style} {phase}{more}")


def _registration(name: str) -> str:
    """`ink` → `styles/ink`, `ink/registrations/r-…` → `styles/ink/registrations/r-…`."""
    return resource("styles", name)


def _come_back(registration: pb.StyleRegistration) -> str:
    return f"terroir style watch {registration.name}"


def _figures(registration: pb.StyleRegistration) -> str:
    told = ", ".join(f"{name} {value:.3g}" for name, value in sorted(registration.metrics.items()))
    return f" ({told})" if told else ""
