"""Results and errors as people and programs see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from terroir._proto.dataset.v1 import dataset_pb2 as pb
from terroir.cli import main
from terroir.cli.session import Session, plain_console
from terroir.common import errors
from terroir.store.errors import StoreUnavailable

SERVICES = Path(__file__).resolve().parents[3] / "services"
HEAVY = {"torch", "diffusers", "transformers", "peft", "ray", "numpy", "PIL"}
EVERY_HELP = """
import json, sys
from typer.main import get_command
from typer.testing import CliRunner
from terroir.cli.main import app

def paths(command, path):
    yield path
    for name, sub in getattr(command, "commands", {}).items():
        yield from paths(sub, [*path, name])

helped = {}
for path in paths(get_command(app), []):
    result = CliRunner().invoke(app, [*path, "--help"])
    helped[" ".join(path)] = [result.exit_code, "Usage" in result.output]
print(json.dumps([helped, sorted(sys.modules)]))
"""


def ending(monkeypatch, capsys, error, *arguments):
    """Exit status and both outputs of a command line whose command raises."""
    monkeypatch.setattr(sys, "argv", ["terroir", *arguments, "adapter", "list"])
    monkeypatch.setattr(main, "app", raising(error))
    with pytest.raises(SystemExit) as ended:
        main.main()
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def raising(error):
    def run():
        raise error

    return run


ERRORS = [
    (errors.NotFound("no [bold]such[/] :smile: thing [/x]", reason="ADAPTER_NOT_FOUND"), "ADAPTER_NOT_FOUND"),
    (StoreUnavailable("the disk is full", "key", "STORE_DISK_FULL"), "STORE_DISK_FULL"),
    (NotADirectoryError(20, "Not a directory", "/a/file/x.png"), "FILE_ERROR"),
]


@pytest.mark.parametrize(("error", "reason"), ERRORS)
def test_an_error_is_one_line_with_its_reason_as_it_was_written(monkeypatch, capsys, error, reason):
    """Square brackets were once taken for markup: the text vanished, or the error message was an error itself."""
    status, out, err = ending(monkeypatch, capsys, error)
    message = "/a/file/x.png: Not a directory" if reason == "FILE_ERROR" else str(error)
    assert (status, out, err) == (1, "", f"error [{reason}] {message}\n")


@pytest.mark.parametrize(("error", "reason"), ERRORS)
def test_with_json_an_error_is_an_object_alone_on_standard_output(monkeypatch, capsys, error, reason):
    status, out, err = ending(monkeypatch, capsys, error, "--json")
    assert (status, err) == (1, "")
    assert json.loads(out)["error"]["reason"] == reason


def test_a_long_error_is_not_broken_into_lines(monkeypatch, capsys):
    _, _, err = ending(monkeypatch, capsys, errors.NotFound("word " * 200))
    assert err.count("\n") == 1


def test_configurations_and_captions_are_printed_as_they_are(capsys):
    session = Session(None, False, plain_console())
    session.show(pb.Dataset(), "target_modules: [to_q, to_k] :tea: [red]x[/red]")
    assert capsys.readouterr().out == "target_modules: [to_q, to_k] :tea: [red]x[/red]\n"


def test_with_json_results_are_json_and_remarks_are_silent(capsys):
    session = Session(None, True, plain_console())
    session.say("a remark")
    session.show(pb.Dataset(name="datasets/ink", trigger_word="水墨"), "a line")
    assert json.loads(capsys.readouterr().out) == {"name": "datasets/ink", "trigger_word": "水墨"}
    session.table([], [], empty="nothing")
    assert json.loads(capsys.readouterr().out) == []


def test_an_empty_list_says_what_to_do(capsys):
    Session(None, False, plain_console()).table([], [("name", str)], empty="no datasets; make one: …")
    assert capsys.readouterr().out == "no datasets; make one: …\n"


def test_a_table_shows_square_brackets(capsys):
    rows = [pb.Dataset(name="datasets/[red]")]
    Session(None, False, plain_console()).table(rows, [("name", lambda d: d.name)], empty="")
    assert "datasets/[red]" in capsys.readouterr().out


def test_every_command_explains_itself_without_heavy_libraries():
    environment = {**os.environ, "PYTHONPATH": str(SERVICES)}
    command = [sys.executable, "-c", EVERY_HELP]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    helped, modules = json.loads(done.stdout)
    assert {"", "up", "demo", "generate", "dataset import", "train submit", "adapter alias", "region put"} <= set(
        helped
    )
    assert {path: result for path, result in helped.items() if result != [0, True]} == {}
    assert set(modules) & HEAVY == set()
