"""`terroir adapter export`: a version in the forms that other tools take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.cli.session import Session, plain_console, resource, session
from terroir.client import Client
from terroir.common.errors import InvalidArgument
from terroir.exports.version import ExportedPreset, ExportedRecipe, ExportedVersion


class Form(StrEnum):
    """What a version can become."""

    WEBUI = "webui"
    MERGED = "merged"
    OCI = "oci"


def export(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(help="`jiangnan` (newest), `jiangnan@production` or `jiangnan/versions/3`.", show_default=False),
    ],
    out: Annotated[Path, typer.Argument(help="New folder, or file with --tar.", show_default=False)],
    to: Annotated[
        Form,
        typer.Option(
            help="`webui`: file, sidecar and preview for A1111 and Forge. `merged`: the base's diffusers folder with "
            "the adapter in its weights. `oci`: an image layout for container registries."
        ),
    ] = Form.WEBUI,
    base_folder: Annotated[Path | None, typer.Option(help="For `merged`: the base's diffusers folder.")] = None,
    weight: Annotated[float, typer.Option(help="For `merged`: how much of the adapter.")] = 1.0,
    tar: Annotated[bool, typer.Option("--tar", help="For `oci`: one tar file instead of a folder.")] = False,
) -> None:
    """Write a version in the form that another tool takes."""
    if to is Form.MERGED and base_folder is None:
        raise InvalidArgument(
            "merging needs the base's weights: name its diffusers folder with --base-folder",
            reason="BASE_FOLDER_MISSING",
            field="base-folder",
        )
    merging = "--base-folder" if base_folder is not None else "--weight" if weight != 1 else ""
    _ensure_used(to, {Form.OCI: "--tar" if tar else "", Form.MERGED: merging})
    this = session(context)
    with this.client() as client:
        file = client.registry.download(resource("adapters", name))
        version = _exported(client, file.version, file.data)
        preview = None
        if to is Form.WEBUI:
            preview, version = _preview(client, version), replace(version, recipes=_recipes(client, version.adapter))
    told = _written(this, to, version, out, preview, base_folder, weight, tar)
    this.show(file.version, told)


def _ensure_used(to: Form, given: Mapping[Form, str]) -> None:
    """An option that changes nothing would be taken for one that did."""
    for form, option in given.items():
        if option and form is not to:
            raise InvalidArgument(
                f"{option} is for --to {form.value}, not for {to.value}; leave it out, or choose that form",
                reason="OPTION_OF_ANOTHER_FORM",
            )


def _written(
    this: Session,
    to: Form,
    version: ExportedVersion,
    out: Path,
    preview: bytes | None,
    base_folder: Path | None,
    weight: float,
    tar: bool,
) -> str:
    # Each needs extras that listing adapters does not.
    if to is Form.WEBUI:
        from terroir.exports.webui import export_webui

        files = export_webui(version, out, preview)
        return f"wrote {', '.join(path.name for path in files)} to {out}: copy them to models/Lora"
    if to is Form.OCI:
        from terroir.exports.oci import export_oci

        digest = export_oci(version, out, tar=tar)
        return f"wrote {out}: {digest}; push it with oras or crane"
    from terroir.exports.merged import export_merged

    with Progress(console=plain_console(stderr=this.as_json), transient=True) as progress:
        bar = progress.add_task("merge")

        def on_progress(step: str, done: int, every: int) -> None:
            progress.update(bar, description=step, completed=done, total=every)

        export_merged(version, base_folder or Path(), out, weight=weight, on_progress=on_progress)
    return f"wrote {out}: {version.base} with {version.name} at {weight:g}"


def _exported(client: Client, version: pb.AdapterVersion, data: bytes) -> ExportedVersion:
    presets = client.presets.get(version.name.rpartition("/versions/")[0]).presets
    return ExportedVersion(
        name=version.name,
        file=data,
        file_digest=version.file_digest,
        tensor_digest=version.tensor_digest,
        base=version.base,
        base_digest=version.base_digest,
        family=client.bases.get(version.base).family,
        created_at=version.create_time.ToJsonString(),
        rank=version.rank,
        trigger_word=version.trigger_word,
        description=version.description,
        region=version.region,
        tags=tuple(version.tags),
        licence=version.labels.get("license", ""),
        lineage={field.name: value for field, value in version.lineage.ListFields()},
        presets=tuple(
            ExportedPreset(
                preset.display_name, tuple(preset.trigger_words), preset.prompt_template, preset.negative_prompt,
                preset.weight,
            )
            for preset in presets
        ),
    )  # fmt: skip


def _recipes(client: Client, adapter: str) -> tuple[ExportedRecipe, ...]:
    found = []
    for recipe in client.recipes.list():
        style = recipe.style
        used = tuple((entry.adapter.removeprefix("adapters/"), entry.weight) for entry in style.adapters)
        if any(re.split("[@/]", name)[0] == adapter for name, _ in used):
            name = recipe.display_name or recipe.name.removeprefix("recipes/")
            found.append(ExportedRecipe(name, used, style.prompt_prefix, style.negative_prompt))
    return tuple(found)


def _preview(client: Client, version: ExportedVersion) -> bytes | None:
    adapter = f"adapters/{version.adapter}"
    samples = client.presets.get(adapter).samples
    return client.presets.sample(adapter, samples[0].digest).picture if samples else None
