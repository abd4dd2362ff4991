"""`terroir demo`: the main job end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terroir.cli.session import plain_console, session

_DEFAULT_EXAMPLES = Path("examples/styles")


def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the contact sheet and all state.")] = Path("build/demo"),
    examples: Annotated[Path, typer.Option(help="Folder with two style folders.")] = _DEFAULT_EXAMPLES,
    store: Annotated[str, typer.Option(help="Keep all objects in a bucket, as `terroir up --store` does.")] = "",
    store_endpoint: Annotated[str, typer.Option(help="Address of the S3 service. Default: AWS.")] = "",
) -> None:
    """Train two example styles, publish them, and draw a contact sheet; minutes on a CPU."""
    # They need the extras of every service.
    from terroir.demo.run import Demo
    from terroir.embedded import ObjectPlace

    this = session(context)
    place = ObjectPlace(store, store_endpoint) if store else None
    files = Demo(out, examples, plain_console(stderr=this.as_json), place).run()
    if this.as_json:
        this.print_json({"png": str(files.png), "html": str(files.html), "figures": str(files.figures)})
        return
    this.say(f"look at {files.html} (one page, opens anywhere) or {files.png}")
