"""What people read: README, notes after the installation, docs/install.md."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from scripts.chart_readme import readme, values
from tests.chart.manifests import named, of_kind
from tests.chart.rendering import CHART, ROOT, Chart
from tests.chart.scenarios import ALL, CI


def test_the_readme_and_the_schema_are_those_of_the_values() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/chart_readme.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_value_has_a_comment_and_stands_in_the_readme() -> None:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    page = readme(text)
    for value in values(text):
        assert value.about, f"{'.'.join(value.path)} has no comment"
        if not value.is_section:
            assert f"| `{'.'.join(value.path)}` |" in page


def test_a_changed_comment_makes_the_readme_stale() -> None:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    assert readme(text) == (CHART / "README.md").read_text(encoding="utf-8")
    assert readme(text.replace("# -- Pods.", "# -- Many pods.")) != readme(text)


@pytest.mark.parametrize("scenario", ALL)
def test_the_notes_name_objects_that_there_are(scenario: str, chart: Chart) -> None:
    documents, told = chart.render(ALL[scenario]), chart.notes(ALL[scenario])
    services = {one["metadata"]["name"] for one in of_kind(documents, "Service")}
    services |= {f"{one['metadata']['name']}-head-svc" for one in of_kind(documents, "RayCluster")}
    named_services = set(re.findall(r"service/([a-z0-9-]+)", told))
    assert len(named_services) >= 4
    assert named_services <= services
    secrets = set(re.findall(r"get secret ([a-z0-9-]+)", told))
    if scenario == "without-certificates":
        assert secrets == set()
        assert "everybody who reaches a service is an operator" in told
    elif scenario != "own-certificates":
        made = {one["metadata"]["name"] for one in of_kind(documents, "Secret")}
        made |= {one["spec"]["secretName"] for one in of_kind(documents, "Certificate")}
        assert secrets <= made
        assert len(secrets) == 1
    assert "terroir generate" in told
    assert "{{" not in re.sub(r"\{\{ index .data [^}]*\}\}", "", told)


def test_the_notes_say_what_is_not_safe(chart: Chart) -> None:
    told = chart.notes({})
    for part in (
        "has the authority's key",
        "one pod without redundancy",
        "plain HTTP",
        "does not encrypt",
        "Port 9090",
    ):
        assert part in told
    external = chart.notes(CI["external-s3"])
    assert "without redundancy" not in external
    assert "No network policy" in chart.notes({"networkPolicy": {"enabled": False}})


def test_dashboards_and_rules_are_loaded_as_they_are(chart: Chart) -> None:
    """They are plain files, so that promtool and Grafana's own tools read them without Helm."""
    documents = chart.render(CI["many-gpus"])
    rules = sorted((CHART / "rules").glob("*.yaml"))
    dashboards = sorted((CHART / "dashboards").glob("*.json"))
    found = of_kind(documents, "PrometheusRule")
    assert sorted(one["spec"]["groups"][0]["name"] for one in found) == sorted(
        yaml.safe_load(path.read_text())["groups"][0]["name"] for path in rules
    )
    for path in rules:
        name = path.stem.replace("_", "-")
        assert named(documents, "PrometheusRule", f"-{name}")["spec"] == yaml.safe_load(path.read_text())
    for path in dashboards:
        config = named(documents, "ConfigMap", f"-dashboard-{path.stem.replace('_', '-')}")
        assert config["data"][path.name].strip() == path.read_text().strip()
        assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert not of_kind(chart.render({}), "PrometheusRule")


def test_what_is_scraped_is_named_by_component(chart: Chart) -> None:
    monitors = of_kind(chart.render(CI["many-gpus"]), "ServiceMonitor")
    assert sorted(one["spec"]["endpoints"][0]["relabelings"][0]["replacement"] for one in monitors) == [
        "terroir-dataset", "terroir-inference", "terroir-registry", "terroir-training",
    ]  # fmt: skip


def test_values_that_the_page_names_exist() -> None:
    """`--set` and dotted names in docs/install.md."""
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    known = {".".join(value.path) for value in values((CHART / "values.yaml").read_text(encoding="utf-8"))}
    stated = set(re.findall(r"--set(?:-file)? ([A-Za-z.]+)=", page))
    stated |= {
        name for name in re.findall(r"`([a-z][A-Za-z]+(?:\.[A-Za-z]+)+)(?::[^`]*)?`", page)
        if name.partition(".")[0] in {one.partition(".")[0] for one in known} and name not in ("tls.crt", "tls.key")
    }  # fmt: skip
    assert len(stated) > 10
    sections = {name.rpartition(".")[0] for name in known}
    assert stated <= known | sections, stated - known - sections
