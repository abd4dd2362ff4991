"""Settings in the chart and settings in the code: the same, in both directions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from scripts.chart_readme import SERVICES as CLASSES
from scripts.chart_readme import TYPED
from terroir.common.errors import InvalidArgument
from tests.chart.manifests import SERVICES, PodTemplate, environment, pod_templates
from tests.chart.rendering import Chart, nested, schema
from tests.chart.scenarios import ALL

# Variables that are no settings: of programs without settings, of Ray, of MinIO, of S3 clients, of the system.
OTHERS = {
    "HOME", "USER", "TERROIR_TLS_DIR", "TERROIR_TOKEN_PATH", "TERROIR_ENDPOINTS", "RAY_USAGE_STATS_ENABLED",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "MINIO_BROWSER", "MINIO_UPDATE", "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
}  # fmt: skip


def service_of(pods: PodTemplate) -> str | None:
    if pods.component in ("ray-head", "ray-worker"):
        return "training"
    return pods.component if pods.component in SERVICES else None


@contextmanager
def variables(stated: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith("TERROIR_"):
            del os.environ[name]
    os.environ.update(stated)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.parametrize("scenario", ALL)
def test_services_and_ray_nodes_accept_the_environment_that_they_get(scenario: str, chart: Chart) -> None:
    """Not by name alone: the settings are read as the service would, so values have types and limits of the code."""
    seen = set()
    for pods in pod_templates(chart.render(ALL[scenario])):
        service = service_of(pods)
        for container in pods.containers():
            stated = environment(container)
            ours = {name for name in stated if service and name.startswith(f"TERROIR_{service.upper()}_")}
            assert stated.keys() - ours <= OTHERS, pods.where
            if ours and service:
                seen.add(pods.component)
                with variables({name: stated[name] for name in ours}):
                    settings = CLASSES[service].load()
                assert settings.metrics_port in (9090, 0)
    assert set(SERVICES) <= seen


def test_a_variable_that_is_no_setting_would_be_seen() -> None:
    with variables({"TERROIR_REGISTRY_PORT": "7103", "TERROIR_REGISTRY_PROT": "1"}), pytest.raises(InvalidArgument):
        CLASSES["registry"].load()


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_in_the_code_can_be_set_through_the_chart(service: str, chart: Chart) -> None:
    """By a typed value, which some scenario shows, or by `settings`."""
    rendered: set[str] = set()
    for values in ALL.values():
        for pods in pod_templates(chart.render(values)):
            if service_of(pods) == service:
                for container in pods.containers():
                    rendered |= environment(container).keys()
    typed = {name for name in TYPED[service] if f"TERROIR_{service}_{name}".upper() in rendered}
    by_name = schema()["$defs"][f"{service}Settings"]["properties"].keys()
    assert not typed & by_name, "two ways to set one thing"
    assert CLASSES[service].model_fields.keys() == typed | by_name


@pytest.mark.parametrize("service", SERVICES)
def test_every_typed_setting_exists(service: str) -> None:
    assert TYPED[service] <= CLASSES[service].model_fields.keys()


@pytest.mark.parametrize(
    ("service", "settings", "variable", "value"),
    [
        ("inference", {"adapter_disk_bytes": 10737418240}, "ADAPTER_DISK_BYTES", 10737418240),
        ("inference", {"warm_regions": ["regions/CN-ZJ"]}, "WARM_REGIONS", ["regions/CN-ZJ"]),
        ("inference", {"compiled": True}, "COMPILED", True),
        ("registry", {"index_poll_seconds": 0.5}, "INDEX_POLL_SECONDS", 0.5),
        ("dataset", {"gates": {"minimum_side": 256}}, "GATES", {"minimum_side": 256}),
    ],
)
def test_a_value_arrives_as_it_was_written(
    service: str, settings: object, variable: str, value: object, chart: Chart
) -> None:
    """Helm reads numbers as floats, and writes large ones as 1.073741824e+10 unless told not to."""
    values = nested(f"{service}.settings", settings)
    (pods,) = (one for one in pod_templates(chart.render(values)) if one.component == service)
    stated = environment(pods.main())
    assert json.loads(stated[f"TERROIR_{service.upper()}_{variable}"]) == value
    with variables({name: text for name, text in stated.items() if name.startswith("TERROIR_")}):
        read = getattr(CLASSES[service].load(), variable.lower())
    expected = read.minimum_side if variable == "GATES" else read
    assert expected == (256 if variable == "GATES" else value)


def test_ray_nodes_get_what_drivers_need_and_no_address_to_listen_on(chart: Chart) -> None:
    for pods in pod_templates(chart.render(ALL["everything"])):
        if pods.component in ("ray-head", "ray-worker"):
            stated = environment(pods.spec["containers"][0])
            assert stated["TERROIR_TRAINING_TLS_DIR"] == stated["TERROIR_TLS_DIR"] == "/etc/terroir/tls"
            assert stated["TERROIR_TRAINING_STORE_SECRET_ACCESS_KEY"].startswith("secret ")
            assert "TERROIR_TRAINING_OTLP_ENDPOINT" in stated
            assert "TERROIR_TRAINING_HOST" not in stated
            identity = next(one for one in pods.spec["volumes"] if one["name"] == "tls")
            assert identity["secret"]["secretName"] == "style-terroir-training-tls"


def test_services_dial_each_other_by_names_that_certificates_hold(chart: Chart) -> None:
    documents = chart.render(ALL["mtls"])
    held = {
        name for one in documents if one["kind"] == "Certificate" for name in one["spec"]["dnsNames"]
    }  # fmt: skip
    for pods in pod_templates(documents):
        for name, value in environment(pods.spec["containers"][0]).items():
            if name.endswith("_TARGET"):
                assert value.rpartition(":")[0] in held
