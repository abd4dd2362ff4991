"""`terroir up`: every service by one command."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from terroir.cli.session import session
from terroir.client.endpoints import default_data_dir
from terroir.common.errors import InvalidArgument
from terroir.embedded import DEFAULT_PORTS, SERVICES, Embedded, ObjectPlace


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def stated_ports() -> dict[str, int]:
    """The default ports, or those that TERROIR_<SERVICE>_PORT states; raises InvalidArgument (INVALID_SETTING)."""
    ports = dict(DEFAULT_PORTS)
    for name in SERVICES:
        variable = f"TERROIR_{name.upper()}_PORT"
        stated = os.environ.get(variable, str(ports[name]))
        if not stated.isdecimal() or int(stated) > 65535:
            raise InvalidArgument(f"{variable} {stated!r} is not a port: 0 … 65535", reason="INVALID_SETTING")
        ports[name] = int(stated)
    return ports


def up(
    context: typer.Context,
    data_dir: Annotated[Path | None, typer.Option(help="Folder that holds everything. Default: ~/.terroir.")] = None,
    free_ports: Annotated[bool, typer.Option(help="Let the system choose ports instead of 7101 to 7104.")] = False,
    store: Annotated[
        str,
        typer.Option(
            help="Keep all objects in a bucket, s3://bucket/prefix, instead of the folder. Its keys are read from "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ),
    ] = "",
    store_endpoint: Annotated[
        str, typer.Option(help="Address of the S3 service, such as http://127.0.0.1:9000. Default: AWS.")
    ] = "",
    inference: Annotated[
        bool, typer.Option(help="Draw on this machine. One that only trains keeps the memory of the model without.")
    ] = True,
) -> None:
    """Start every service on this machine; Ctrl-C stops them. State stays in the folder, or in the bucket."""
    this = session(context)
    folder = data_dir or this.data_dir or default_data_dir()
    # A supervisor (systemd, a container runtime) stops this command with SIGTERM: drain as for Ctrl-C.
    signal.signal(signal.SIGTERM, _as_interrupt)
    ports = dict.fromkeys(SERVICES, 0) if free_ports else stated_ports()
    this.say(f"data in {store or folder}")
    with (
        contextlib.suppress(KeyboardInterrupt),
        Embedded(
            folder,
            ports=ports,
            store=ObjectPlace(store, store_endpoint) if store else None,
            inference=inference,
            on_ready=lambda name, seconds: this.say(f"  {name} listens ({seconds:.1f} s)"),
        ) as running,
    ):
        if inference:
            this.say("loading the base model …")
            running.wait_until_serving("inference", 120)
        if this.as_json:
            this.print_json({"data_dir": str(folder), "endpoints": asdict(running.endpoints), "pids": running.pids})
        for name in running.pids:
            this.say(f"  {name:<10} {getattr(running.endpoints, name)}")
        hint = 'terroir generate "a red teapot by a river at sunset"' if inference else "terroir train submit --help"
        this.say(f"ready. Try, in another terminal: {hint}")
        running.watch()
    this.say(f"stopped; everything is kept in {store or 'the folder'}")
