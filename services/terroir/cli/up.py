"""`terroir up`: every service by one command."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from terroir.client.endpoints import default_data_dir
from terroir.embedded import DEFAULT_PORTS, SERVICES, Embedded


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def up(
    data_dir: Annotated[Path | None, typer.Option(help="Folder that holds everything. Default: ~/.terroir.")] = None,
    free_ports: Annotated[bool, typer.Option(help="Let the system choose ports instead of 7101 to 7104.")] = False,
) -> None:
    """Start every service on this machine; Ctrl-C stops them. State stays in the folder."""
    console = Console()
    folder = data_dir or default_data_dir()
    # A supervisor (systemd, a container runtime) stops this command with SIGTERM: drain as for Ctrl-C.
    signal.signal(signal.SIGTERM, _as_interrupt)
    ports = dict.fromkeys(SERVICES, 0) if free_ports else DEFAULT_PORTS
    console.print(f"data in {folder}", highlight=False)
    try:
        with Embedded(
            folder, ports=ports, on_ready=lambda name, seconds: console.print(f"  {name} listens ({seconds:.1f} s)")
        ) as running:
            console.print("loading the base model …")
            running.wait_until_serving("inference", 120)
            for name in SERVICES:
                console.print(f"  {name:<10} {getattr(running.endpoints, name)}", highlight=False)
            console.print('ready. Try, in another terminal: terroir generate "a red teapot by a river at sunset"')
            running.watch()
    except KeyboardInterrupt:
        console.print("stopped; everything is kept in the folder")
