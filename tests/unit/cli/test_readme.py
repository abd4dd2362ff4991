"""What README.md tells a newcomer to type is understood by the command line, and its Python uses names that exist."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from terroir import client
from terroir.cli.main import app
from terroir.training.config.parser import parse_config

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^(?:    .*\n)+", README, re.MULTILINE) + re.findall(
    r"```(?:sh|bash|console)\n(.*?)```", README, re.DOTALL
)
COMMANDS = [
    line.strip() for block in BLOCKS for line in block.splitlines() if re.match(r"\s*(\.venv/bin/)?terroir ", line)
] + list(re.findall(r"`(terroir [^`]+)`", README))
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def parse(command, arguments, parent=None, name="terroir"):
    """Parse as the command line does, without running anything; the innermost command's name."""
    with command.make_context(name, arguments, parent=parent) as context:
        rest = [*context._protected_args, *context.args]
        if not rest:
            return name
        sub_name, sub, remaining = command.resolve_command(context, rest)
        return parse(sub, remaining, context, sub_name)


def test_the_readme_has_commands_and_python():
    assert {"up", "dataset", "train", "generate"} <= {shlex.split(command)[1] for command in COMMANDS}
    assert len(PYTHON) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_understood(command):
    arguments = shlex.split(command, comments=True)[1:]
    if "--help" in arguments:
        return
    assert parse(get_command(app), arguments) in arguments


@pytest.mark.parametrize("arguments", [["dataset", "create"], ["generate", "x", "--sed", "1"], ["paint", "x"]])
def test_what_the_command_line_does_not_understand_would_be_noticed(arguments):
    with pytest.raises(Exception, match=r"Missing parameter|No such option|No such command"):
        parse(get_command(app), arguments)


@pytest.mark.parametrize("name", re.findall(r"\b((?:examples|docs|services|proto|tests)/[\w./-]+)", README))
def test_a_path_that_the_readme_names_exists(name):
    assert (ROOT / name.rstrip(".")).exists()


@pytest.mark.parametrize("source", PYTHON)
def test_the_python_of_the_readme_uses_names_that_exist(source):
    tree = ast.parse(source)
    compile(tree, "README.md", "exec")
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert imported
    assert all(name in client.__all__ for name in imported)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "generate":
            known = inspect.signature(client.Client.generate).parameters
            assert {keyword.arg for keyword in call.keywords} <= set(known)
            return
    raise AssertionError("the README no longer shows how to generate")


def test_the_configuration_of_the_readme_is_valid_and_meets_its_other_commands():
    submit = next(shlex.split(command) for command in COMMANDS if " train submit " in command)
    created = next(shlex.split(command) for command in COMMANDS if " dataset create " in command)
    parsed = parse_config((ROOT / submit[3]).read_text())
    assert parsed.config.dataset == f"datasets/{created[3]}"
    assert list(parsed.warnings) == []
