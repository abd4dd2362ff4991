"""What every command shares: where the services are, how results are printed, how errors end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from terroir.client import Client, Endpoints

Column = tuple[str, Callable[[Any], str]]


@dataclass(frozen=True)
class Session:
    """Options that stand before the command."""

    data_dir: Path | None
    as_json: bool
    console: Console

    def client(self) -> Client:
        """A client of the services; where they are is discovered now."""
        return Client(Endpoints.discover(self.data_dir))

    def say(self, line: str) -> None:
        """A remark for people; silent with --json."""
        if not self.as_json:
            self.console.print(line, soft_wrap=True)

    def show(self, message: Message, *lines: str) -> None:
        """One result: JSON, or lines for people."""
        if self.as_json:
            self.print_json(to_dict(message))
        else:
            for line in lines:
                self.console.print(line, soft_wrap=True)

    def done(self, fact: dict[str, Any], line: str) -> None:
        """The end of a command that has no message to show: JSON, or a line for people."""
        if self.as_json:
            self.print_json(fact)
        else:
            self.say(line)

    def table(self, messages: Iterable[Message], columns: Sequence[Column], *, empty: str) -> None:
        """Many results: a JSON array, or a table; `empty` says what to do where there are none."""
        rows = list(messages)
        if self.as_json:
            self.print_json([to_dict(row) for row in rows])
            return
        if not rows:
            self.console.print(empty, soft_wrap=True)
            return
        table = Table(*(name for name, _ in columns), box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(cell(row) for _, cell in columns))
        self.console.print(table)

    def print_json(self, value: Any) -> None:
        """Machine output, alone on standard output."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
        sys.stdout.flush()

    def print_json_line(self, value: Any) -> None:
        """One of many machine-readable lines, written at once."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A progress bar on standard error; silent with --json, and where nobody watches."""
        console = Console(stderr=True)
        with Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
            console=console, disable=self.as_json or not console.is_terminal,
        ) as bar:  # fmt: skip
            yield bar


def to_dict(message: Message) -> dict[str, Any]:
    """JSON form with the proto's own field names."""
    return MessageToDict(message, preserving_proto_field_name=True)


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints captions, paths and configurations as they are: `[to_q]` is no markup there."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def session(context: typer.Context) -> Session:
    """The session of a command."""
    found = context.find_object(Session)
    if found is None:
        raise RuntimeError("the command was called without the application's callback")
    return found


def resource(kind: str, value: str) -> str:
    """Full resource name of what people type: `jiangnan` → `datasets/jiangnan`."""
    return value if value.startswith(f"{kind}/") else f"{kind}/{value}"
