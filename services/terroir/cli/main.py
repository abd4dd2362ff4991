"""Entry point: the command tree, and errors as one readable line with a stable reason code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.text import Text

from terroir.cli import (
    adapter,
    base,
    covers,
    dataset,
    demo,
    generate,
    judgement,
    preset,
    rating,
    recipe,
    region,
    style,
    train,
    up,
)
from terroir.cli.session import Session, plain_console
from terroir.common.errors import TerroirError
from terroir.store.errors import StoreError

app = typer.Typer(
    name="terroir",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Teach an image model the look of a place from a few dozen pictures, and draw with it.\n\n"
    "Start with `terroir demo`, or run `terroir up` in one terminal and the other commands in another.\n\n"
    "For a cluster set TERROIR_ENDPOINTS (where its services are), TERROIR_TLS_DIR (a folder with tls.crt, tls.key and "
    "ca.crt) and, where it takes tokens, TERROIR_TOKEN_PATH.",
)
app.add_typer(dataset.app, name="dataset")
app.add_typer(style.app, name="style")
app.add_typer(train.app, name="train")
app.add_typer(adapter.app, name="adapter")
train.app.add_typer(rating.app, name="rate")
train.app.command()(judgement.verdict)
train.app.command()(judgement.report)
adapter.app.add_typer(preset.presets, name="preset")
adapter.app.add_typer(preset.samples, name="sample")
app.add_typer(base.app, name="base")
app.add_typer(region.app, name="region")
app.add_typer(recipe.app, name="recipe")
app.add_typer(covers.app, name="covers")
app.command("generate")(generate.generate)
app.command("up")(up.up)
app.command("demo")(demo.demo)


@app.callback()
def options(
    context: typer.Context,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the `terroir up` to talk to. Default: TERROIR_ENDPOINTS, else ~/.terroir."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results as JSON on standard output.")] = False,
) -> None:
    """Options that stand before the command."""
    context.obj = Session(data_dir, as_json, plain_console())


def main() -> None:
    """Run the command line; exit status 1 for an error that Terroir names, 130 for Ctrl-C."""
    as_json = "--json" in sys.argv
    try:
        app()
    except (TerroirError, StoreError) as error:
        _report(error.reason, str(error), as_json=as_json)
    except OSError as error:  # a file that the person named: outputs of a download, a folder for pictures
        _report("FILE_ERROR", f"{error.filename or 'a file'}: {error.strerror or error}", as_json=as_json)


def _report(reason: str, message: str, *, as_json: bool) -> NoReturn:
    if as_json:
        Session(None, True, plain_console()).print_json({"error": {"reason": reason, "message": message}})
    else:
        plain_console(stderr=True).print(Text.assemble(("error", "bold red"), f" [{reason}] {message}"), soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
