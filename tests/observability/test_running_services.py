"""A real Prometheus over the running services: every expression answers, every series comes, every scrape is clean."""

from __future__ import annotations

import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from math import isnan

import pytest

from scripts.metrics_reference import SERVICES as OWN_METRICS
from scripts.metrics_reference import all_metrics, metrics
from tests.command_line import Up
from tests.conftest import _find
from tests.observability.dashboard_files import queries
from tests.observability.promql import read
from tests.observability.rule_files import RULE_FILES, rules
from tests.observability.watched_services import SERVICES, Watched
from tests.tools.prometheus_server import PrometheusServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NEVER_HERE = {
    "terroir_store_errors_total": "the store answers all the time",
}
"""Series that have no sample until something rare happens, and why it does not here."""
SILENT = {
    ("terroir-registry", "Errors"): "the store answers all the time",
    ("terroir-overview", "Errors of ours by service"): "no service fails",
}
"""Panels that show nothing while all is well; each says so in its description."""


@pytest.fixture(scope="module")
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    prometheus = PrometheusServer(_find(request.config, "prometheus"), tmp_path_factory.mktemp("prometheus"))
    built = Watched.prepared(folder, prometheus)
    with Up(built.data_dir, built.environment()) as running:
        running.ready()
        prometheus.start(built.targets(), tuple(RULE_FILES))
        try:
            built.wait_for("count(up == 1) == 4")
            built.make_traffic()
            built.wait_for('terroir_training_jobs{state="succeeded"} == 1')
            built.wait_for("terroir_inference_cover_fill_lag_seconds_count >= 1")
            built.wait_for("terroir:deadline_misses:ratio_rate5m > 0")
            built.wait_for("count_over_time(terroir_auth_refusals_total[1m]) >= 2")  # a rate needs two samples
            yield built
        finally:
            prometheus.stop()
        assert running.end(signal.SIGTERM)[0] == 0


def test_every_target_is_scraped(watched: Watched) -> None:
    assert watched.prometheus.targets() == {address: "" for one in watched.targets().values() for address in one}


def test_every_rule_is_evaluated_without_an_error(watched: Watched) -> None:
    seen = watched.prometheus.rules()
    assert len(seen) == sum(1 for _ in rules())
    assert [(rule["name"], rule.get("lastError")) for rule in seen if rule["health"] != "ok"] == []


def test_every_recorded_series_is_there(watched: Watched) -> None:
    missing = [rule.name for rule in rules() if not rule.alert and not watched.prometheus.query(f"count({rule.name})")]
    assert missing == []


def test_every_panel_shows_something(watched: Watched) -> None:
    """Now or before: on a slow machine what was done first is no longer in the window of a rate when all is done."""
    empty = {
        (query.dashboard, query.panel)
        for query in queries()
        if not query.panel.startswith("annotation")
        and not _shows(watched, query.expression)
        and not _shows(watched, f"max_over_time(({query.expression})[30m:5s])")
    }
    assert empty <= set(SILENT), sorted(empty - set(SILENT))
    assert set(SILENT) <= {(query.dashboard, query.panel) for query in queries()}


def _shows(watched: Watched, expression: str) -> bool:
    return any(not isnan(sample.value) for sample in watched.prometheus.query(expression))


def test_every_series_that_an_alert_reads_is_there(watched: Watched) -> None:
    """Else the alert could never fire, and nobody would see that it can't."""
    missing = {
        f"{rule.name}: {selector.metric}"
        for rule in rules()
        for selector in read(rule.expression).selectors
        if selector.metric not in NEVER_HERE and not watched.prometheus.query(f"count({selector.metric})")
    }
    assert missing == set()


def test_every_metric_comes_from_the_service_that_it_is_told_of_with_the_labels_that_are_told(watched: Watched) -> None:
    wrong = []
    for service in SERVICES:
        for metric in [*metrics("every service"), *metrics(service)]:
            for name in metric.series:
                if name in NEVER_HERE:
                    continue
                samples = watched.prometheus.query(f'{{__name__="{name}",job="terroir-{service}"}}')
                labels = {*metric.labels, *({"le"} if name.endswith("_bucket") else set())}
                if not samples and not _rare(service, name):
                    wrong.append(f"{service}: no {name}")
                wrong += [
                    f"{name}: {s.labels}" for s in samples if set(s.labels) - {"__name__", "job", "instance"} != labels
                ]
    assert wrong == []


def _rare(service: str, name: str) -> bool:
    """Counters by reason or code have no series before the first refusal; each has one at one service at least."""
    return (name, service) in {
        ("terroir_auth_refusals_total", "dataset"), ("terroir_auth_refusals_total", "training"),
        ("terroir_auth_refusals_total", "registry"),
    }  # fmt: skip


def test_nothing_is_shown_that_is_not_told_of(watched: Watched) -> None:
    shown = {sample.labels["__name__"] for sample in watched.prometheus.query('{__name__=~"terroir_.+"}')}
    known = {name for metric in all_metrics().values() for name in metric.series}
    known |= {f"{metric.name}_created" for metric in all_metrics().values()}
    assert sorted(shown - known) == []


@pytest.mark.parametrize("service", SERVICES)
def test_promtool_finds_nothing_in_a_scrape_to_complain_of(
    watched: Watched, tool: Callable[[str], str], service: str
) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{watched.metrics_ports[service]}/metrics", timeout=10) as answer:
        text = answer.read()
    assert b"terroir_build_info" in text and set(OWN_METRICS) > {service}
    done = subprocess.run([tool("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_deadlines_that_were_missed_call_somebody(watched: Watched) -> None:
    """From the calls to the page, through all of it: none of the rules' parts is written by the test."""
    watched.wait_for('ALERTS{alertname="TerroirDeadlineErrorBudgetBurnFast",alertstate="firing",severity="page"}')


def test_nobody_is_called_for_what_went_well(watched: Watched) -> None:
    fired = {alert["labels"]["alertname"] for alert in watched.prometheus.alerts() if alert["state"] == "firing"}
    slow = {rule.name for rule in rules() if "Latency" in rule.name}  # the machine may have other work
    assert fired - slow == {"TerroirDeadlineErrorBudgetBurnFast"}
