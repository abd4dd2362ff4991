"""`terroir adapter publish`: a file becomes the next version."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.cli.session import resource, session
from terroir.common.errors import InvalidArgument
from terroir.lora.errors import LoraError

_PEFT_WEIGHTS: Final = "adapter_model.safetensors"


def publish(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Adapter, such as `jiangnan`.", show_default=False)],
    file: Annotated[
        Path,
        typer.Argument(
            help="A `.safetensors` file of kohya, A1111 or diffusers, or a PEFT folder.", show_default=False
        ),
    ],
    base: Annotated[str, typer.Option(help="Base model that it was trained on.")] = "terroir-tiny",
    trigger: Annotated[str, typer.Option(help="Word that calls the style up.")] = "",
    description: Annotated[str, typer.Option(help="For people; at most 2000 characters.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Word to find it by; repeat for several.")] = None,
    region: Annotated[str, typer.Option(help="Region that it was made for, such as `CN-ZJ`.")] = "",
    metric: Annotated[
        list[str] | None, typer.Option(help="Measured figure, such as `style_similarity=0.71`; repeat for several.")
    ] = None,
) -> None:
    """Publish a file as the next version; it is validated before the version exists."""
    try:
        data = _contents(file)
    except OSError as error:
        raise InvalidArgument(f"cannot read {file}: {error}", reason="FILE_MISSING") from error
    header = pb.PublishHeader(
        adapter=resource("adapters", name), base=resource("bases", base), trigger_word=trigger,
        description=description, tags=tag or (), region=resource("regions", region) if region else "",
        metrics=dict(map(_figure, metric or ())),
    )  # fmt: skip
    this = session(context)
    with this.client() as client, this.progress() as progress:
        bar = progress.add_task(f"publish {file.name}", total=len(data))
        version = client.registry.publish(header, data, on_sent=lambda sent: progress.update(bar, completed=sent))
    coverage = version.coverage
    left = len(coverage.ignored) + len(coverage.unknown)
    missing = f", {coverage.missing_layers} attention layers unchanged" if coverage.missing_layers else ""
    this.show(
        version,
        f"published {version.name}: {coverage.matched_layers} layers, {left} keys left out{missing}"
        + ("; `terroir --json adapter show` names them" if left else ""),
    )


def _contents(file: Path) -> bytes:
    """The file; of a PEFT folder its weights, with the configuration beside them, which alone has the strength."""
    path = file / _PEFT_WEIGHTS if file.is_dir() else file
    data, config = path.read_bytes(), path.with_name("adapter_config.json")
    if path.name == _PEFT_WEIGHTS and config.is_file():
        from terroir.lora.formats.peft_config import with_config  # needs numpy, which nothing else here does

        with suppress(LoraError):  # the registry says what is wrong with it
            return with_config(data, config.read_text(encoding="utf-8"))
    return data


def _figure(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise InvalidArgument(
            f"--metric {text!r} is not NAME=NUMBER, such as style_similarity=0.71", reason="INVALID_METRIC"
        ) from error
