"""The commands that docs/ tells people to type are understood by the command line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from terroir.cli.main import app
from tests.unit.cli.test_readme import parse

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = ("covers.md", "regions.md", "registry.md", "exports.md", "signing.md", "training.md")
COMMANDS = [
    (page, line.strip().removeprefix(".venv/bin/"))
    for page in PAGES
    for line in (DOCS / page).read_text(encoding="utf-8").splitlines()
    if re.match(r" {4}(\.venv/bin/)?terroir ", line)
]


def test_the_pages_have_commands():
    assert {page for page, _ in COMMANDS} == set(PAGES)


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[command for _, command in COMMANDS])
def test_a_command_of_the_docs_is_understood(page, command):
    assert parse(get_command(app), shlex.split(command, comments=True)[1:]) != "terroir", page
