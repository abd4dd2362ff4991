"""`terroir generate`: draw pictures in one or several styles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir.cli.session import resource, session
from terroir.cli.styles import parse_adapter
from terroir.client.pictures import ASPECT_RATIOS, PRIORITIES
from terroir.common.errors import InvalidArgument
from terroir.common.validation import did_you_mean

_FORMATS = {"png": pb.PICTURE_FORMAT_PNG, "jpeg": pb.PICTURE_FORMAT_JPEG, "webp": pb.PICTURE_FORMAT_WEBP}

_T = TypeVar("_T")


def parse_size(text: str) -> tuple[int, int]:
    """`128x72` to width and height in pixels; raises InvalidArgument (BAD_SIZE)."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise InvalidArgument(f"size {text!r} is not WIDTHxHEIGHT in pixels, such as 128x72", reason="BAD_SIZE")
    return int(width), int(height)


def generate(
    context: typer.Context,
    prompt: Annotated[
        str,
        typer.Argument(
            help="What to draw. `<lora:jiangnan:0.8>` adds a style, `<lora:jiangnan:te=0.3:unet=0.8>` weighs text "
            "encoder and denoiser apart.",
            show_default=False,
        ),
    ],
    adapter: Annotated[list[str] | None, typer.Option(help="`name@alias=weight`; repeat to stack styles.")] = None,
    region: Annotated[str, typer.Option(help="Take the style of this region.")] = "",
    seed: Annotated[list[int] | None, typer.Option(help="One picture a seed; repeat for several.")] = None,
    variants: Annotated[
        int, typer.Option(help="So many pictures: after one --seed those that follow it, else random ones.")
    ] = 0,
    negative: Annotated[str, typer.Option(help="What to keep away from.")] = "",
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels; default: the base's own.")] = "0x0",
    aspect: Annotated[str, typer.Option(help="Shape instead of a size: 1:1, 16:9 or 3:4.")] = "",
    steps: Annotated[int, typer.Option(help="Denoising steps, 1 to 150.")] = 20,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale; 1 turns it off. Default: the base's own.")
    ] = None,
    sampler: Annotated[str, typer.Option(help="ddim, euler, euler-a, dpmpp-2m, dpmpp-2m-karras or unipc.")] = "ddim",
    init: Annotated[
        Path | None, typer.Option(help="Start from this picture (PNG, JPEG or WebP).", dir_okay=False, exists=True)
    ] = None,
    strength: Annotated[float, typer.Option(help="How far to leave --init: near 0 hardly, 1 wholly.")] = 0.6,
    vary: Annotated[int | None, typer.Option(help="Draw near the picture of this seed.")] = None,
    vary_strength: Annotated[float, typer.Option(help="How far to leave it: 0 not at all, 1 wholly.")] = 0.2,
    priority: Annotated[str, typer.Option(help=f"Place in the queue: {', '.join(PRIORITIES)}.")] = "normal",
    public: Annotated[
        bool, typer.Option("--public", help="Files say only that a model made them, and a look-up id.")
    ] = False,
    preview: Annotated[int, typer.Option(help="Keep <number>.preview.jpg up to date, every so many steps.")] = 0,
    file_format: Annotated[str, typer.Option("--format", help="png, jpeg or webp.")] = "png",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path(),
    deadline: Annotated[float, typer.Option(help="Give up after so many seconds.")] = 300.0,
) -> None:
    """Draw pictures in one or several styles."""
    this = session(context)
    width, height = parse_size(size)
    weights = [parse_adapter(text) for text in adapter or []]
    request = pb.GenerateRequest(
        prompt=prompt, negative_prompt=negative, width=width, height=height, steps=steps, guidance_scale=guidance,
        sampler=sampler, seeds=seed or [], variants=variants, preview_interval_steps=preview,
        format=one_of(_FORMATS, file_format, "format"), priority=one_of(PRIORITIES, priority, "priority"),
        aspect_ratio=one_of(ASPECT_RATIOS, aspect, "aspect"),
        region=resource("regions", region) if region else "",
        adapters=[pb.AdapterWeight(adapter=name, weight=weight) for name, weight in weights],
        init_image=None if init is None else pb.InitImage(data=init.read_bytes(), strength=strength),
        variation=None if vary is None else pb.Variation(seed=vary, strength=vary_strength),
        provenance_profile=pb.PROVENANCE_PROFILE_PUBLIC if public else pb.PROVENANCE_PROFILE_UNSPECIFIED,
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    with this.client() as client, this.progress() as bar:
        task = bar.add_task("drawing", total=steps)

        def advance(event: pb.GenerateResponse) -> None:
            kind = event.WhichOneof("event")
            if kind == "queued" and event.queued.position:
                bar.update(task, description=f"waiting behind {event.queued.position}")
            elif kind == "step":
                bar.update(task, description="drawing", completed=event.step.step, total=event.step.total_steps)
            elif kind == "preview":
                (out / f"{event.preview.index}.preview.jpg").write_bytes(event.preview.jpeg)

        result = client.pictures.generate(request, timeout=deadline, on_event=advance)
    files = [picture.save(out / f"{picture.seed}.{file_format}") for picture in result.pictures]
    if this.as_json:
        this.print_json(
            {
                "files": [str(path) for path in files],
                "picture_ids": [picture.picture_id for picture in result.pictures],
                "adapters": {a.version: a.weight for a in result.done.adapters},
                "warnings": list(result.done.warnings),
            }
        )
        return
    for path in files:
        this.say(f"wrote {path}")
    for warning in result.done.warnings:
        this.say(f"warning: {warning}")


def one_of(known: Mapping[str, _T], name: str, option: str) -> _T:
    """Raises InvalidArgument (UNKNOWN_<OPTION>) that names the nearest."""
    if name not in known:
        raise InvalidArgument(
            f"unknown {option} {name!r}{did_you_mean(name, known)}; known are {', '.join(filter(None, known))}",
            reason=f"UNKNOWN_{option.upper()}",
        )
    return known[name]
