"""Dashboards are what Grafana reads: their form, their layout, and that each looks at the namespace that was chosen."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.chart.rendering import Chart
from tests.command_line import ROOT
from tests.observability.dashboard_files import DASHBOARD_FILES, load, panels, queries
from tests.observability.promql import read

SCHEMA = yaml.safe_load((Path(__file__).parent / "grafana_dashboard.schema.yaml").read_text())
each = pytest.mark.parametrize("path", DASHBOARD_FILES, ids=lambda path: path.stem)


@each
def test_has_the_form_that_grafana_reads(path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    errors = [
        f"{list(e.path)}: {e.message[:200]}" for e in jsonschema.Draft202012Validator(SCHEMA).iter_errors(load(path))
    ]
    assert errors == []


@pytest.mark.parametrize(("where", "key"), [("panels", "unti"), ("targets", "exprs"), ("defaults", "units")])
def test_a_misspelt_key_would_be_noticed(where: str, key: str) -> None:
    dashboard = copy.deepcopy(load(DASHBOARD_FILES[0]))
    panel = next(panels(dashboard))
    place = {"panels": panel, "targets": panel["targets"][0], "defaults": panel["fieldConfig"]["defaults"]}[where]
    place[key] = "s"
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(dashboard)


def test_there_is_one_for_each_part_and_their_identifiers_are_their_own() -> None:
    found = [load(path) for path in DASHBOARD_FILES]
    assert {dashboard["uid"] for dashboard in found} == {
        "terroir-overview", "terroir-inference", "terroir-training", "terroir-registry", "terroir-security",
    }  # fmt: skip
    assert [dashboard["uid"] for dashboard in found] == [path.stem for path in DASHBOARD_FILES]
    assert len({dashboard["title"] for dashboard in found}) == len(found)


@each
def test_panels_have_identifiers_of_their_own_and_lie_beside_each_other(path: Path) -> None:
    shown = load(path)["panels"]
    assert len({panel["id"] for panel in shown}) == len(shown)
    taken: dict[tuple[int, int], str] = {}
    for panel in shown:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken.get(cell)}"
            taken[cell] = panel["title"]
    assert len({panel["title"] for panel in panels(load(path))}) == sum(1 for _ in panels(load(path)))


@each
def test_references_of_one_panel_differ_and_legends_tell_series_apart(path: Path) -> None:
    for panel in panels(load(path)):
        targets = panel["targets"]
        assert len({target["refId"] for target in targets}) == len(targets), panel["title"]
        if panel["type"] == "timeseries":
            legends = [target["legendFormat"] for target in targets]
            assert len(set(legends)) == len(legends) and all(legends), panel["title"]


def test_every_query_looks_at_the_chosen_namespaces_alone() -> None:
    wrong = [
        f"{query.dashboard}: {query.panel}: {selector.metric}"
        for query in queries()
        for selector in read(query.stated).selectors
        if not any((m.label, m.operator, m.value) == ("namespace", "=~", "$namespace") for m in selector.matchers)
    ]
    assert wrong == []


def test_the_chart_puts_each_into_a_map_of_its_own_unchanged(tool: Callable[[str], str]) -> None:
    rendered = Chart(tool("helm")).render({"monitoring": {"dashboards": {"enabled": True}}})
    maps = [
        one for one in rendered if one["kind"] == "ConfigMap" and one["metadata"]["labels"].get("grafana_dashboard")
    ]
    held: dict[str, Any] = {name: text for one in maps for name, text in one["data"].items()}
    assert {name: yaml.safe_load(text) for name, text in held.items()} == {
        path.name: load(path) for path in DASHBOARD_FILES
    }


def test_the_chart_makes_a_rule_object_of_each_rule_file_unchanged(tool: Callable[[str], str]) -> None:
    """Braces of annotations are Prometheus' own: Helm must not evaluate them."""
    rendered = Chart(tool("helm")).render({"monitoring": {"prometheusRule": {"enabled": True}}})
    specs = [one["spec"] for one in rendered if one["kind"] == "PrometheusRule"]
    files = [
        yaml.safe_load(path.read_text()) for path in sorted((ROOT / "charts" / "terroir" / "rules").glob("*.yaml"))
    ]
    assert sorted(specs, key=str) == sorted(files, key=str) and len(files) == 7
