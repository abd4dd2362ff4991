"""The chart's dashboards, read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.command_line import ROOT

DASHBOARD_FILES: Final = sorted((ROOT / "charts" / "terroir" / "dashboards").glob("*.json"))
_VARIABLES: Final = {"$namespace": ".*", "$__rate_interval": "1m"}


@dataclass(frozen=True)
class Query:
    """One expression of a panel."""

    dashboard: str
    panel: str
    stated: str

    @property
    def expression(self) -> str:
        """With variables as Grafana would put them in: all namespaces."""
        text = self.stated
        for variable, value in _VARIABLES.items():
            text = text.replace(variable, value)
        return text


def load(path: Path) -> dict[str, Any]:
    """A dashboard."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All, rows left out."""
    yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


def queries() -> Iterator[Query]:
    """Of all dashboards, those of annotations too."""
    for path in DASHBOARD_FILES:
        dashboard = load(path)
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield Query(path.stem, panel["title"], target["expr"])
        for annotation in dashboard["annotations"]["list"]:
            if "expr" in annotation:
                yield Query(path.stem, f"annotation {annotation['name']}", annotation["expr"])
