"""`terroir generate`: draw pictures in one or several styles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir.cli.session import resource, session
from terroir.cli.styles import parse_adapter
from terroir.common.errors import InvalidArgument

_FORMATS = {"png": pb.PICTURE_FORMAT_PNG, "jpeg": pb.PICTURE_FORMAT_JPEG, "webp": pb.PICTURE_FORMAT_WEBP}


def parse_size(text: str) -> tuple[int, int]:
    """`128x72` to width and height in pixels; raises InvalidArgument (BAD_SIZE)."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise InvalidArgument(f"size {text!r} is not WIDTHxHEIGHT in pixels, such as 128x72", reason="BAD_SIZE")
    return int(width), int(height)


def generate(
    context: typer.Context,
    prompt: Annotated[
        str, typer.Argument(help="What to draw. `<lora:jiangnan:0.8>` adds a style.", show_default=False)
    ],
    adapter: Annotated[list[str] | None, typer.Option(help="`name@alias=weight`; repeat to stack styles.")] = None,
    region: Annotated[str, typer.Option(help="Take the style of this region.")] = "",
    seed: Annotated[list[int] | None, typer.Option(help="One picture a seed; repeat for variants.")] = None,
    negative: Annotated[str, typer.Option(help="What to keep away from.")] = "",
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels; default: the base's own.")] = "0x0",
    steps: Annotated[int, typer.Option(help="Denoising steps, 1 to 150.")] = 20,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale; 1 turns it off. Default: the base's own.")
    ] = None,
    sampler: Annotated[str, typer.Option(help="ddim, euler, euler-a or dpmpp-2m.")] = "ddim",
    file_format: Annotated[str, typer.Option("--format", help="png, jpeg or webp.")] = "png",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path(),
    deadline: Annotated[float, typer.Option(help="Give up after so many seconds.")] = 300.0,
) -> None:
    """Draw pictures in one or several styles."""
    this = session(context)
    if file_format not in _FORMATS:
        raise InvalidArgument(
            f"unknown format {file_format!r}; known are {', '.join(_FORMATS)}", reason="UNKNOWN_FORMAT"
        )
    width, height = parse_size(size)
    weights = [parse_adapter(text) for text in adapter or []]
    request = pb.GenerateRequest(
        prompt=prompt, negative_prompt=negative, width=width, height=height, steps=steps, guidance_scale=guidance,
        sampler=sampler, seeds=seed or [], format=_FORMATS[file_format],
        region=resource("regions", region) if region else "",
        adapters=[pb.AdapterWeight(adapter=name, weight=weight) for name, weight in weights],
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    with this.client() as client, this.progress() as bar:
        task = bar.add_task("drawing", total=steps)

        def advance(event: pb.GenerateResponse) -> None:
            if event.WhichOneof("event") == "step":
                bar.update(task, completed=event.step.step, total=event.step.total_steps)

        result = client.pictures.generate(request, timeout=deadline, on_event=advance)
    files = [picture.save(out / f"{picture.seed}.{file_format}") for picture in result.pictures]
    if this.as_json:
        this.print_json(
            {
                "files": [str(path) for path in files],
                "adapters": {a.version: a.weight for a in result.done.adapters},
                "warnings": list(result.done.warnings),
            }
        )
        return
    for path in files:
        this.say(f"wrote {path}")
    for warning in result.done.warnings:
        this.say(f"warning: {warning}")
