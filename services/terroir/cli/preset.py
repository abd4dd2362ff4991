"""`terroir adapter preset` and `terroir adapter sample`: how an adapter is best used, and what that looks like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.cli.session import resource, session
from terroir.common.errors import InvalidArgument, NotFound

presets = typer.Typer(no_args_is_help=True, help="Ways of using an adapter that suit it; the first is the default.")
samples = typer.Typer(no_args_is_help=True, help="Pictures that show what an adapter does.")

_Name = Annotated[str, typer.Argument(metavar="ADAPTER", help="Adapter, such as `jiangnan`.", show_default=False)]
_Preset = Annotated[
    str, typer.Argument(metavar="PRESET", help="Name for people, such as `Soft ink`.", show_default=False)
]
_SUFFIXES: Final = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}


@presets.command("list")
def list_presets(context: typer.Context, name: _Name) -> None:
    """List presets, the default first."""
    with session(context).client() as client:
        found = client.presets.get(resource("adapters", name))
    session(context).table(
        found.presets,
        [
            ("preset", lambda p: p.display_name), ("weight", lambda p: f"{p.weight:g}"),
            ("trigger words", lambda p: ", ".join(p.trigger_words)), ("prompt", lambda p: p.prompt_template),
            ("negative", lambda p: p.negative_prompt),
        ],
        empty="no presets; make one: terroir adapter preset set ADAPTER PRESET --trigger WORD --weight 0.8",
    )  # fmt: skip


@presets.command("set")
def set_preset(
    context: typer.Context,
    name: _Name,
    preset: _Preset,
    trigger: Annotated[list[str] | None, typer.Option(help="Word that calls the style up; repeat for more.")] = None,
    prompt: Annotated[str, typer.Option(help="Prompt with `{prompt}` where the caller's words go.")] = "",
    negative: Annotated[str, typer.Option(help="Negative prompt.")] = "",
    weight: Annotated[float, typer.Option(help="Weight that suits it, -2 to 2.")] = 1.0,
    first: Annotated[bool, typer.Option("--first", help="Make it the default.")] = False,
) -> None:
    """Add a preset, or replace the one of that name where it stands."""
    wanted = pb.Preset(
        display_name=preset,
        trigger_words=trigger or [],
        prompt_template=prompt,
        negative_prompt=negative,
        weight=weight,
    )
    with session(context).client() as client:
        found = client.presets.get(resource("adapters", name))
        kept = list(found.presets)
        at = next((index for index, entry in enumerate(kept) if entry.display_name == preset), None)
        if at is not None:
            kept.pop(at)
        kept.insert(0 if first else len(kept) if at is None else at, wanted)
        stored = client.presets.set(pb.AdapterPresets(adapter=found.adapter, presets=kept, etag=found.etag))
    names = ", ".join(entry.display_name for entry in stored.presets)
    session(context).show(stored, f"{stored.adapter} has the presets {names}")


@presets.command("remove")
def remove_preset(context: typer.Context, name: _Name, preset: _Preset) -> None:
    """Remove a preset."""
    with session(context).client() as client:
        found = client.presets.get(resource("adapters", name))
        kept = [entry for entry in found.presets if entry.display_name != preset]
        if len(kept) == len(found.presets):
            known = ", ".join(entry.display_name for entry in kept) or "none"
            raise NotFound(f"{found.adapter} has no preset {preset!r}; it has: {known}", reason="PRESET_NOT_FOUND")
        stored = client.presets.set(pb.AdapterPresets(adapter=found.adapter, presets=kept, etag=found.etag))
    session(context).show(stored, f"{stored.adapter}: {len(stored.presets)} presets")


@samples.command("list")
def list_samples(context: typer.Context, name: _Name) -> None:
    """List sample pictures, newest first."""
    with session(context).client() as client:
        found = client.presets.get(resource("adapters", name))
    session(context).table(
        found.samples,
        [
            ("sample", lambda s: s.digest[:12]), ("type", lambda s: s.media_type),
            ("pixels", lambda s: f"{s.width}x{s.height}"), ("version", lambda s: s.version),
            ("caption", lambda s: s.caption),
        ],
        empty="no samples; add one: terroir adapter sample add ADAPTER PICTURE",
    )  # fmt: skip


@samples.command("add")
def add_sample(
    context: typer.Context,
    name: _Name,
    picture: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP file, at most 4 MiB.", show_default=False)],
    caption: Annotated[str, typer.Option(help="What it shows or how it was made.")] = "",
    version: Annotated[int, typer.Option(help="Number of the version that drew it; 0 for none.")] = 0,
) -> None:
    """Keep a picture as it is, with what its file says about itself; beyond 32 the oldest gives way."""
    try:
        data = picture.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"cannot read {picture}: {error}", reason="FILE_MISSING") from error
    adapter = resource("adapters", name)
    with session(context).client() as client:
        kept = client.presets.add_sample(
            adapter, data, caption=caption, version=f"{adapter}/versions/{version}" if version else ""
        )
    session(context).show(kept, f"kept {kept.digest[:12]} of {adapter}: {kept.width}x{kept.height}, {kept.media_type}")


@samples.command("save")
def save_sample(
    context: typer.Context,
    name: _Name,
    digest: Annotated[str, typer.Argument(help="As listed; its first digits are enough.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File or folder to write to.")] = Path(),
) -> None:
    """Write a sample picture to a file."""
    adapter = resource("adapters", name)
    with session(context).client() as client:
        found = [sample for sample in client.presets.get(adapter).samples if sample.digest.startswith(digest)]
        if len(found) != 1:
            raise NotFound(
                f"{adapter} has {len(found)} samples that begin with {digest!r}; list them: "
                f"terroir adapter sample list {name}",
                reason="SAMPLE_NOT_FOUND",
            )
        answer = client.presets.sample(adapter, found[0].digest)
    sample = answer.sample
    target = out / (sample.digest[:12] + _SUFFIXES.get(sample.media_type, "")) if out.is_dir() else out
    target.write_bytes(answer.picture)
    session(context).show(sample, f"wrote {target}: {len(answer.picture)} bytes")
