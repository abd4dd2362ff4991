"""The chart's rule files, read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from tests.command_line import ROOT

RULE_FILES: Final = sorted((ROOT / "charts" / "terroir" / "rules").glob("*.yaml"))


@dataclass(frozen=True)
class Rule:
    """One alert or recording rule."""

    name: str
    alert: bool
    stated: dict[str, Any]
    file: str

    @property
    def expression(self) -> str:
        """Its PromQL."""
        return str(self.stated["expr"])

    @property
    def severity(self) -> str:
        """Of an alert."""
        return str(self.stated["labels"]["severity"])


def rules() -> Iterator[Rule]:
    """All of all files."""
    for path in RULE_FILES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for stated in group["rules"]:
                yield Rule(stated.get("alert") or stated["record"], "alert" in stated, stated, path.name)
