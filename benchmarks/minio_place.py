"""A real MinIO for one area of benchmarks, on this machine, where it was built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from scripts.tools import TOOLS, path_of
from tests.tools.minio_server import MinioServer

NOT_BUILT: Final = "MinIO is not built here (make tools)"
"""Reason of a row that was not measured."""


@contextmanager
def minio_server(folder: Path) -> Iterator[MinioServer | None]:
    """A running one whose data lies in `folder`; None where it was not built."""
    program = path_of(next(tool for tool in TOOLS if tool.name == "minio"))
    if not program.exists():
        yield None
        return
    server = MinioServer(str(program), folder / "data")
    folder.mkdir(parents=True, exist_ok=True)
    server.start()
    try:
        yield server
    finally:
        server.stop()
