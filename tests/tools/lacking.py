"""What this machine lacks: tests that need it are skipped, loudly, or fail where TERROIR_REQUIRE_TOOLS names it."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

LACKING = pytest.StashKey[set[str]]()
"""What was lacking in this run, as its closing lines name it."""


def skip_without(config: pytest.Config, tool: str, told: str | None = None, target: str = "tools") -> NoReturn:
    """Skip the test that asks, or fail it where TERROIR_REQUIRE_TOOLS names the `tool`.

    `told` names what is lacking where the tool's name says too little; `make <target>` gets it.
    """
    lacking = told or tool
    if tool in os.environ.get("TERROIR_REQUIRE_TOOLS", "").split(","):
        pytest.fail(f"required here (TERROIR_REQUIRE_TOOLS={tool}) and not found: {lacking}; run make {target}")
    config.stash[LACKING].add(f"{lacking} (make {target})")
    pytest.skip(f"not found: {lacking}; run make {target}")
