"""`terroir adapter`: publish, list, download, point aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.cli.alias import alias, audit, deprecate, rollback, unalias
from terroir.cli.comparing import compare
from terroir.cli.export import export
from terroir.cli.lineage import lineage
from terroir.cli.publishing import publish
from terroir.cli.searching import find, list_adapters, watch
from terroir.cli.session import resource, session
from terroir.cli.verify import verify
from terroir.common.errors import InvalidArgument

app = typer.Typer(no_args_is_help=True, help="Published styles: versions never change, aliases move.")

AdapterName = Annotated[str, typer.Argument(help="Adapter, such as `jiangnan`.", show_default=False)]
VersionName = Annotated[
    str, typer.Argument(help="`jiangnan` (newest), `jiangnan@production` or `jiangnan/versions/3`.", show_default=False)
]
_FORMATS: Final = {"kohya": pb.ADAPTER_FORMAT_KOHYA, "diffusers": pb.ADAPTER_FORMAT_DIFFUSERS}

app.command()(compare)
for command in (alias, rollback, unalias, deprecate, audit, lineage, export, verify):
    app.command()(command)
app.command("list")(list_adapters)
app.command()(find)
app.command()(publish)
app.command()(watch)


@app.command()
def versions(context: typer.Context, name: AdapterName) -> None:
    """List versions, newest first."""
    with session(context).client() as client:
        session(context).table(
            client.registry.versions(resource("adapters", name)),
            [
                ("version", lambda v: v.name), ("rank", lambda v: str(v.rank)), ("bytes", lambda v: str(v.size_bytes)),
                ("layers", lambda v: str(v.coverage.matched_layers)), ("job", lambda v: v.lineage.job),
                ("file", lambda v: v.file_digest[:12]), ("published", lambda v: v.create_time.ToJsonString()),
            ],
            empty="no versions",
        )  # fmt: skip


@app.command()
def show(context: typer.Context, name: VersionName) -> None:
    """Show one version and where it came from."""
    with session(context).client() as client:
        version = client.registry.version(resource("adapters", name))
    lineage = version.lineage
    session(context).show(
        version,
        f"{version.name} rank {version.rank} on {version.base}, {version.coverage.matched_layers} layers",
        f"trigger word: {version.trigger_word or 'none'}",
        f"from {lineage.job or 'an upload'} {lineage.dataset_version}",
        f"file {version.file_digest}",
        f"tensors {version.tensor_digest}",
        f"training print {version.training_print_digest or 'none'}",
    )


@app.command()
def download(
    context: typer.Context,
    name: VersionName,
    out: Annotated[Path, typer.Option(help="File or folder to write to.")] = Path(),
    file_format: Annotated[
        str, typer.Option("--format", help="`kohya` (A1111, ComfyUI, diffusers) or `diffusers`.")
    ] = "kohya",
    private_header: Annotated[
        bool, typer.Option(help="Leave base, description and tags out of the header; tensors stay as they are.")
    ] = False,
) -> None:
    """Download a version's file."""
    if file_format not in _FORMATS:
        raise InvalidArgument(
            f"unknown format {file_format!r}; known are {', '.join(_FORMATS)}", reason="UNKNOWN_FORMAT"
        )
    with session(context).client() as client:
        file = client.registry.download(
            resource("adapters", name), _FORMATS[file_format], private_header=private_header
        )
    target = out / file.file_name if out.is_dir() else out
    target.write_bytes(file.data)
    session(context).show(file.version, f"wrote {target}: {len(file.data)} bytes of {file.version.name}")
