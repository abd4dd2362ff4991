"""Wrong values fail at `helm template`, in words that name the key; docs/install.md lists the same messages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import ROOT, Chart, nested

CONFLICT = "These values do not go together:"

Row = dict[str, Any]
_TABLE: dict[str, list[Row]] = yaml.safe_load((Path(__file__).parent / "bad_input.yaml").read_text(encoding="utf-8"))
SCHEMA, CONFLICTS = _TABLE["schema"], _TABLE["conflicts"]


def what(row: Row) -> str:
    return str(row["what"])


@pytest.mark.parametrize("row", SCHEMA, ids=what)
def test_what_the_schema_refuses_is_named(row: Row, chart: Chart) -> None:
    told = chart.refusal(row["values"])
    assert any(one.strip().startswith(f"- {row['line']}") for one in told.splitlines()), told


@pytest.mark.parametrize("row", CONFLICTS, ids=what)
def test_options_that_contradict_each_other_are_named_with_the_next_step(row: Row, chart: Chart) -> None:
    told = chart.refusal(row["values"])
    assert CONFLICT in told
    assert f"- {row['line']}" in told.splitlines(), told


def test_all_contradictions_are_told_at_once(chart: Chart) -> None:
    values = {
        "tls": {"source": "none"}, "store": {"enabled": False},
        "inference": {"autoscaling": {"hpa": {"enabled": True}, "keda": {"enabled": True}}},
    }  # fmt: skip
    lines = [one for one in chart.refusal(values).splitlines() if one.startswith("- ")]
    assert len(lines) == 3


def test_image_volumes_are_refused_where_kubernetes_has_none(chart: Chart) -> None:
    values = nested("inference.model", {"source": "image", "id": "sd15", "image": {"reference": "a/b:1"}})
    line = "Kubernetes v1.32.0 has no image volumes (1.33 or later): choose pvc or bucket"
    assert f"- inference.model.source is image and {line}" in chart.refusal(values, kube_version="1.32").splitlines()
    assert chart.render(values, kube_version="1.33")


def test_an_older_kubernetes_is_refused(chart: Chart) -> None:
    told = chart.refusal({}, kube_version="1.31")
    assert "chart requires kubeVersion: >=1.32.0-0 which is incompatible with Kubernetes v1.31.0" in told


def test_every_contradiction_that_the_chart_knows_is_tried_above() -> None:
    """A message that no test shows may never come."""
    template = (ROOT / "charts" / "terroir" / "templates" / "_conflicts.tpl").read_text()
    messages = [line for line in template.splitlines() if line and not line.startswith(("{{", " "))]
    shown = "\n".join(row["line"] for row in CONFLICTS)
    untried = [line for line in messages if not _shape(line).search(shown)]
    assert len(messages) > 30
    assert [line for line in untried if "has no image volumes" not in line] == []


def _shape(line: str) -> re.Pattern[str]:
    return re.compile(".+?".join(re.escape(part) for part in re.split(r"\{\{.*?\}\}", line)))


def test_the_table_of_messages_in_the_docs_is_this_one() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    for row in (*SCHEMA, *CONFLICTS):
        assert f"| {row['what']} | `{row['line']}`" in page, row["what"]
