"""Each line of the threat model, each guarantee and each fault of training names tests, and they exist."""

from __future__ import annotations

import re

import pytest

from tests.command_line import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
FAULTS = (ROOT / "docs" / "training-faults.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (PAGE.partition("## Threat model")[2] + GUARANTEES + FAULTS).splitlines()
    if line.startswith("| ") and not line.startswith(("| threat", "| ---", "| promise", "| what happens"))
]


def test_the_model_has_lines() -> None:
    assert len(ROWS) >= 30


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_what_stands_against_it_is_tested(row: list[str]) -> None:
    tests = re.findall(r"`(tests/[^`]+)`", row[-1])
    assert tests, f"{row[0]}: no test is named"
    for named in tests:
        path, _, function = named.partition("::")
        assert (ROOT / path).exists(), named
        if function:
            assert re.search(rf"^(async )?def {function}\(", (ROOT / path).read_text(), re.MULTILINE), named


def test_every_reason_of_the_table_is_one_that_the_code_raises() -> None:
    table = PAGE.partition("## What a wrong call")[2].partition("## Threat")[0]
    reasons = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", table))
    sources = "".join(path.read_text() for path in (ROOT / "services/terroir/common").rglob("*.py"))
    assert reasons and not [reason for reason in reasons if f'"{reason}"' not in sources]


def test_every_reason_of_the_faults_of_training_is_one_that_the_code_raises() -> None:
    reasons = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", FAULTS))
    sources = "".join(path.read_text() for path in (ROOT / "services/terroir").rglob("*.py"))
    assert reasons and not [reason for reason in reasons if f'"{reason}"' not in sources]
