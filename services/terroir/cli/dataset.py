"""`terroir dataset`: pictures in, judged, captioned, frozen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Final

import typer

from terroir._proto.dataset.v1 import dataset_pb2 as pb
from terroir.cli.session import resource, session
from terroir.client import scan_folder

app = typer.Typer(no_args_is_help=True, help="Turn a folder of pictures into a frozen dataset version.")

_VERDICTS: Final = {
    pb.VERDICT_PASS: "pass", pb.VERDICT_WARN: "warn", pb.VERDICT_QUARANTINE: "quarantine", pb.VERDICT_REJECT: "reject",
}  # fmt: skip
DatasetName = Annotated[str, typer.Argument(help="Dataset, such as `jiangnan`.", show_default=False)]


@app.command()
def create(
    context: typer.Context,
    name: DatasetName,
    trigger: Annotated[str, typer.Option(help="Word that calls the style up in prompts.")] = "",
    region: Annotated[str, typer.Option(help="Region code, such as CN-ZJ.")] = "",
    description: Annotated[str, typer.Option(help="What the style is.")] = "",
    license_id: Annotated[str, typer.Option("--license", help="Licence of the pictures.")] = "",
    rights: Annotated[
        str, typer.Option(help="Statement that you may train on these pictures; training needs it.")
    ] = "",
    display_name: Annotated[str, typer.Option(help="Name for people.")] = "",
) -> None:
    """Create an empty dataset."""
    fields = pb.Dataset(
        display_name=display_name or name, region=region, description=description, trigger_word=trigger,
        license=license_id, rights_statement=rights,
    )  # fmt: skip
    with session(context).client() as client:
        made = client.datasets.create(name, fields)
    session(context).show(made, f"created {made.name}; next: terroir dataset import {name} FOLDER")


@app.command("import")
def import_folder(
    context: typer.Context,
    name: DatasetName,
    folder: Annotated[Path, typer.Argument(help="Folder of pictures, with `.txt` sidecars or `metadata.csv`.")],
) -> None:
    """Import a folder of pictures; run it again after an interruption, nothing is sent twice."""
    this = session(context)
    pictures = scan_folder(folder)
    verdicts: Counter[str] = Counter()
    known = 0
    results = []
    with this.client() as client, this.progress() as bar:
        task = bar.add_task("importing", total=len(pictures))
        for imported in client.datasets.import_pictures(resource("datasets", name), pictures):
            verdicts[_VERDICTS[imported.image.verdict]] += 1
            known += imported.already_present
            bar.advance(task)
            results.append(imported)
    if this.as_json:
        this.print_json(
            {"imported": len(results), "already_present": known, "verdicts": dict(verdicts)},
        )
        return
    for imported in results:
        for finding in imported.image.findings:
            this.say(f"{imported.path.name}: {_VERDICTS[finding.verdict]} {finding.gate}: {finding.message}")
    summary = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    this.say(f"imported {len(results)} pictures ({summary}; {known} were there already)")


@app.command("list")
def list_datasets(context: typer.Context) -> None:
    """List datasets."""
    with session(context).client() as client:
        session(context).table(
            client.datasets.list(),
            [
                ("name", lambda d: d.name), ("pictures", lambda d: str(d.image_count)),
                ("region", lambda d: d.region), ("trigger", lambda d: d.trigger_word),
            ],
            empty="no datasets; make one: terroir dataset create NAME",
        )  # fmt: skip


@app.command()
def images(context: typer.Context, name: DatasetName) -> None:
    """List pictures with verdicts and captions."""
    with session(context).client() as client:
        session(context).table(
            client.datasets.images(resource("datasets", name)),
            [
                ("file", lambda i: i.file_name), ("size", lambda i: f"{i.width}×{i.height}"),
                ("verdict", lambda i: _VERDICTS.get(i.verdict, "?")),
                ("agreement", lambda i: f"{i.caption.agreement:.2f}"),
                ("caption", lambda i: i.caption.text), ("digest", lambda i: i.digest[:12]),
            ],
            empty=f"no pictures; add some: terroir dataset import {name} FOLDER",
        )  # fmt: skip


@app.command()
def caption(context: typer.Context, name: DatasetName) -> None:
    """Draft captions for pictures that have none."""
    this = session(context)
    done = 0
    with this.client() as client, this.progress() as bar:
        task = bar.add_task("captioning", total=None)
        for answer in client.datasets.caption(resource("datasets", name)):
            done = answer.done
            bar.update(task, completed=answer.done, total=answer.total)
    if this.as_json:
        this.print_json({"captioned": done})
    else:
        this.say(f"captioned {done} pictures; look: terroir dataset images {name}")


@app.command("edit-caption")
def edit_caption(
    context: typer.Context,
    name: DatasetName,
    digest: Annotated[str, typer.Argument(help="Digest of the picture, from `terroir --json dataset images`.")],
    text: Annotated[str, typer.Argument(help="The new caption.")],
) -> None:
    """Write a caption by hand; the machine's draft is kept beside it."""
    with session(context).client() as client:
        image = client.datasets.update_caption(resource("datasets", name), digest, text)
    session(context).show(image, f"{image.file_name}: {image.caption.text}")


@app.command()
def freeze(context: typer.Context, name: DatasetName) -> None:
    """Freeze accepted pictures and captions into an immutable version."""
    with session(context).client() as client:
        version = client.datasets.freeze(resource("datasets", name))
    session(context).show(version, f"{version.name}: {version.image_count} pictures, digest {version.digest[:12]}")


@app.command()
def versions(context: typer.Context, name: DatasetName) -> None:
    """List frozen versions."""
    with session(context).client() as client:
        session(context).table(
            client.datasets.versions(resource("datasets", name)),
            [
                ("version", lambda v: v.name), ("pictures", lambda v: str(v.image_count)),
                ("digest", lambda v: v.digest[:12]), ("frozen", lambda v: v.create_time.ToJsonString()),
            ],
            empty=f"no versions; make one: terroir dataset freeze {name}",
        )  # fmt: skip
