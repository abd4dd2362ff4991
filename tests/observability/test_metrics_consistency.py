"""What dashboards, rules, scalers and pages say of metrics is what the code makes, and the reverse."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from scripts import metrics_reference
from scripts.metrics_reference import Metric, all_metrics, runtime_metrics
from terroir._proto.dataset.v1 import dataset_pb2
from terroir._proto.inference.v1 import cover_pb2, inference_pb2
from terroir._proto.registry.v1 import region_pb2, registry_pb2
from terroir._proto.training.v1 import training_pb2
from terroir.common.errors import ErrorCode
from terroir.embedded import SERVICES
from terroir.inference.adapters.tiers import Tier
from terroir.inference.admission.metrics import Promise
from terroir.inference.admission.priority import Priority
from terroir.inference.covers.ladder import RungKind
from terroir.store.observer import Operation
from terroir.training.jobs.census import JobPlace
from tests.chart.rendering import Chart
from tests.chart.scenarios import ALL
from tests.command_line import ROOT
from tests.observability.dashboard_files import queries
from tests.observability.promql import Matcher, Selector, read
from tests.observability.rule_files import rules

METRICS: Final = all_metrics()
SERIES: Final[dict[str, Metric]] = {
    name: metric for metric in [*METRICS.values(), *runtime_metrics()] for name in metric.series
}
RECORDED: Final = {rule.name for rule in rules() if not rule.alert}
TARGET: Final = frozenset({"namespace", "job", "instance", "pod", "service"})
"""Labels that Prometheus adds to what it scrapes under the operator."""
BUILT_IN: Final = {"up": TARGET, "ALERTS": TARGET | {"alertname", "alertstate", "severity"}}
GROWS: Final = frozenset({"rate", "increase"})

METHODS: Final = frozenset(
    f"/{service.full_name}/{method.name}"
    for file in (dataset_pb2, training_pb2, registry_pb2, region_pb2, inference_pb2, cover_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
VALUES: Final[dict[str, frozenset[str]]] = {
    "method": METHODS,
    "code": frozenset({"OK", *ErrorCode}),
    "job": frozenset(f"terroir-{service}" for service in SERVICES),
    "tier": frozenset({*Tier, "merged"}),
    "result": frozenset(Promise),
    "priority": frozenset(priority.name for priority in Priority),
    "rung": frozenset(RungKind),
    "state": frozenset(JobPlace),
    "operation": frozenset(Operation.__args__),
    "alertstate": frozenset({"firing", "pending"}),
    "alertname": frozenset(rule.name for rule in rules() if rule.alert),
}


@dataclass(frozen=True)
class Use:
    """One expression somewhere."""

    where: str
    expression: str


def uses() -> Iterator[Use]:
    for rule in rules():
        yield Use(f"rule {rule.name}", rule.expression)
    for query in queries():
        yield Use(f"{query.dashboard}: {query.panel}", query.expression)


USES: Final = list(uses())
SELECTORS: Final = [(use, selector) for use in USES for selector in read(use.expression).selectors]


def test_every_series_that_is_used_exists() -> None:
    known = {*SERIES, *RECORDED, *BUILT_IN}
    assert sorted({f"{use.where}: {one.metric}" for use, one in SELECTORS if one.metric not in known}) == []
    assert len(SELECTORS) > 200


def test_every_series_is_used_as_what_it_is() -> None:
    """A counter is a rate or an increase, a bucket goes into a quantile or a share, a gauge never grows by itself."""
    assert [wrong for use, one in SELECTORS if (wrong := _misused(use, one))] == []


def _misused(use: Use, selector: Selector) -> str:
    metric, inner = SERIES.get(selector.metric), selector.functions[-1] if selector.functions else ""
    grows = inner in GROWS
    if bool(selector.window) != (grows or inner.endswith("_over_time")):
        return f"{use.where}: {selector.metric}[{selector.window}] in {inner or 'nothing'}"
    if metric is None:
        return f"{use.where}: {selector.metric} is no counter" if grows else ""
    counts = metric.kind in ("counter", "histogram")
    if counts != grows:
        return f"{use.where}: {metric.kind} {selector.metric} in {inner or 'nothing'}"
    if selector.metric.endswith("_bucket") and not (
        "histogram_quantile" in selector.functions or any(matcher.label == "le" for matcher in selector.matchers)
    ):
        return f"{use.where}: buckets of {selector.metric} are added up"
    return ""


def _labels(selector: Selector) -> frozenset[str]:
    if selector.metric in BUILT_IN:
        return BUILT_IN[selector.metric]
    if selector.metric in RECORDED:
        return frozenset({"namespace"})
    metric = SERIES[selector.metric]
    return TARGET | set(metric.labels) | ({"le"} if selector.metric.endswith("_bucket") else set())


def test_recorded_series_have_the_one_label_that_is_told_of_them() -> None:
    for rule in rules():
        if not rule.alert:
            assert read(rule.expression).grouping <= {"namespace"}, rule.name


def test_every_label_that_is_used_exists() -> None:
    wrong = [
        f"{use.where}: {selector.metric} has no {matcher.label}"
        for use, selector in SELECTORS
        for matcher in selector.matchers
        if matcher.label not in _labels(selector)
    ]
    for use in USES:
        found = read(use.expression)
        known = frozenset().union(*(_labels(selector) for selector in found.selectors))
        wrong += [f"{use.where}: nothing has {label}" for label in found.grouping - known]
    assert wrong == []


def test_every_value_that_is_looked_for_can_occur() -> None:
    """A misspelt method, code, tier or reason selects nothing, and an alert on it stays quiet for good."""
    code = "\n".join(path.read_text() for path in (ROOT / "services" / "terroir").rglob("*.py"))
    wrong = [
        f"{use.where}: {selector.metric}: {matcher.label}{matcher.operator}{value!r}"
        for use, selector in SELECTORS
        for matcher in selector.matchers
        for value in _impossible(selector, matcher, code)
    ]
    assert wrong == []


def _impossible(selector: Selector, matcher: Matcher, code: str) -> Iterator[str]:
    if matcher.label in ("namespace", "instance", "pod"):
        return
    if matcher.label == "le":
        yield from {matcher.value} - set(SERIES[selector.metric].bounds)
    elif matcher.label == "reason":
        yield from (value for value in matcher.value.split("|") if f'"{value}"' not in code)
    elif matcher.label == "method" or matcher.value.endswith((".+", ".*")):
        regular = matcher.operator in ("=~", "!~")
        if not any(
            re.fullmatch(matcher.value if regular else re.escape(matcher.value), v) for v in VALUES[matcher.label]
        ):
            yield matcher.value
    else:
        yield from set(matcher.value.split("|")) - VALUES[matcher.label]


def test_the_reads_of_the_registry_are_all_of_its_reads_and_no_stream() -> None:
    pattern = next(
        matcher.value
        for use, selector in SELECTORS
        for matcher in selector.matchers
        if use.where == "rule terroir:metadata_calls:rate5m" and matcher.label == "method"
    )
    streams = {
        f"/{service.full_name}/{method.name}"
        for file in (registry_pb2, region_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.server_streaming or method.client_streaming
    }
    meant = {method for method in METHODS if re.fullmatch(pattern, method)}
    reads = {
        m for m in METHODS if m.startswith("/terroir.registry.") and re.match("Get|List|Find|Resolve", m.split("/")[2])
    }
    assert meant == reads and len(meant) >= 15 and not meant & streams


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {SERIES[name].name for query in queries() for name in _series(query.expression)}
    assert sorted(set(METRICS) - shown) == []


def _series(expression: str) -> Iterator[str]:
    yield from (selector.metric for selector in read(expression).selectors if selector.metric in SERIES)


def test_scalers_read_what_exists(tool: Callable[[str], str]) -> None:
    chart = Chart(tool("helm"))
    documents = [document for values in ALL.values() for document in chart.render(values)]
    expressions, names = set(), set()
    for document in documents:
        if document["kind"] == "ScaledObject":
            expressions |= {trigger["metadata"]["query"] for trigger in document["spec"]["triggers"]}
        if document["kind"] == "HorizontalPodAutoscaler":
            names |= {metric["pods"]["metric"]["name"] for metric in document["spec"]["metrics"] if "pods" in metric}
    assert len(expressions) >= 2 and names, "no scenario scales by a metric, so nothing would be checked"
    for expression in expressions:
        for selector in read(expression).selectors:
            assert not _misused(Use("ScaledObject", expression), selector)
            assert {matcher.label for matcher in selector.matchers} <= _labels(selector)
            services = [m for m in selector.matchers if m.label not in ("service",)]
            assert [value for m in services for value in _impossible(selector, m, "")] == []
    assert {SERIES[name].kind for name in names} == {"gauge"}


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "charts" / "terroir" / "README.md"], ids=lambda p: p.name
)
def test_pages_name_metrics_that_exist(page: Path) -> None:
    named = set(
        re.findall(
            r"\bterroir_(?:rpc|auth|rate|tls|access|build|trace|store|dataset|training|registry|inference)_\w+",
            page.read_text(),
        )
    )
    assert sorted(named - {*SERIES, *METRICS}) == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "runbooks").glob("*.md")), ids=lambda page: page.stem)
def test_runbooks_ask_what_prometheus_can_answer_and_name_settings_that_exist(page: Path) -> None:
    text = page.read_text()
    for line in re.findall(r"^ {7}(.*(?:rate\(|terroir_\w).*)$", text, re.MULTILINE):
        if not line.startswith("kubectl"):
            for selector in read(line).selectors:
                assert not _misused(Use(page.stem, line), selector)
                assert {matcher.label for matcher in selector.matchers} <= _labels(selector), line
    settings = (ROOT / "docs" / "settings.md").read_text()
    assert [name for name in re.findall(r"TERROIR_[A-Z_]+", text) if f"`{name}`" not in settings] == []
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (page.parent / link).exists(), link


def test_the_reference_page_is_that_of_the_code() -> None:
    """Run `python scripts/metrics_reference.py` when this fails."""
    assert metrics_reference.PAGE.read_text() == metrics_reference.page()


def test_no_metric_is_made_that_the_reference_does_not_know() -> None:
    """Found in the source, so that a class that the script does not call is noticed."""
    made = set()
    for path in (ROOT / "services" / "terroir").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if re.fullmatch(r"terroir_(?!store_deadline)[a-z]+_[a-z_]+", node.value):
                    made.add(node.value)
            elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                prefix = str(node.values[0].value)
                if re.fullmatch(r"terroir_[a-z]+_", prefix):
                    made |= {name for name in METRICS if name.startswith(prefix)}
    assert made <= set(METRICS), made - set(METRICS)
    assert len(made) >= len(METRICS) - 1  # terroir_build is an Info, named without its suffix


def test_names_are_by_the_rules_of_prometheus() -> None:
    """Of the code's own, so that it needs no service; a real scrape is judged by promtool where services run."""
    units = ("seconds", "bytes", "ratio", "info")
    for metric in METRICS.values():
        assert re.fullmatch(r"terroir_[a-z]+(_[a-z]+)*", metric.name), metric.name
        assert re.fullmatch(r"[A-Z0-9].*\.", metric.about), metric.name
        assert metric.kind != "histogram" or metric.name.endswith(units), metric.name
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket")), metric.name
        assert all(re.fullmatch(r"[a-z_]+", label) for label in metric.labels), metric.name


def test_promtool_takes_every_metric(tool: Callable[[str], str]) -> None:
    for service, makers in metrics_reference.SERVICES.items():
        registry = CollectorRegistry()
        for make in makers:
            make(registry)
        done = subprocess.run(
            [tool("promtool"), "check", "metrics"], input=generate_latest(registry), capture_output=True, check=False
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, b""), service
