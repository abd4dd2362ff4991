"""Wrong values fail at `helm template`, in words that name the key; docs/install.md lists the same messages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.rendering import ROOT, Chart, defaults, nested, schema
from tests.chart.scenarios import ISSUER

CONFLICT = "These values do not go together:"

# What is wrong, the values, and the line that a person reads.
SCHEMA: list[tuple[str, dict[str, Any], str]] = [
    ("an unknown key", nested("inference.replica", 2), "- at '/inference': additional properties 'replica' not allowed"),
    ("an unknown key at the top", {"inferences": {}}, "- at '': additional properties 'inferences' not allowed"),
    ("an unknown key four levels down", nested("inference.autoscaling.keda.fallback.replica", 2),
     "- at '/inference/autoscaling/keda/fallback': additional properties 'replica' not allowed"),
    ("an unknown key in a list", {"ray": {"workerGroups": [{
        "name": "a", "maxReplicas": 1, "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": "1Gi"}}, "gpus": 1}]}},
     "- at '/ray/workerGroups/0': additional properties 'gpus' not allowed"),
    ("an unknown setting of a service", nested("inference.settings.max_queue_siz", 3),
     "- at '/inference/settings': additional properties 'max_queue_siz' not allowed"),
    ("a setting that a typed value makes", nested("registry.settings.port", 7000),
     "- at '/registry/settings': additional properties 'port' not allowed"),
    ("a wrong type", nested("inference.replicas", "two"), "- at '/inference/replicas': got string, want integer"),
    ("a wrong type deep down", nested("inference.autoscaling.keda.enabled", "yes"),
     "- at '/inference/autoscaling/keda/enabled': got string, want boolean"),
    ("a wrong type of a setting", nested("inference.settings.max_queue_size", "many"),
     "- at '/inference/settings/max_queue_size': got string, want integer"),
    ("a number beyond its limit", nested("inference.drain.timeoutSeconds", 9999),
     "- at '/inference/drain/timeoutSeconds': maximum: got 9,999, want 3,600"),
    ("a choice that there is not", nested("tls.source", "vault"),
     "- at '/tls/source': value must be one of 'generated', 'certManager', 'existingSecrets', 'none'"),
    ("an amount without a unit that Kubernetes knows", nested("dataset.cacheSizeLimit", "5 GB"), "- at '/dataset/cacheSizeLimit': '5 GB' does not match pattern"),
    ("a part taken away", nested("inference.drain", None), "- at '/inference': missing property 'drain'"),
    ("an algorithm that anybody could sign with", nested("access.issuers", [{**ISSUER, "algorithms": ["HS256"]}]),
     "- at '/access/issuers/0/algorithms/0': value must be one of 'RS256',"),
    ("keys of an issuer over plain http", nested("access.issuers", [{**ISSUER, "jwks": "http://x"}]),
     "- at '/access/issuers/0/jwks': 'http://x' does not match pattern"),
]  # fmt: skip

CONFLICTS: list[tuple[str, dict[str, Any], str]] = [
    ("a store of our own and another", nested("store.external", {"endpoint": "https://s3.example.com", "existingSecret": "s3"}),
     "- store.enabled is true and store.external is set: say store.enabled=false to use the external service, or leave store.external empty"),
    ("an external store without a secret", nested("store.enabled", False),
     "- store.enabled is false and the external store has no credentials: name a secret with access-key-id and secret-access-key in store.external.existingSecret, or say store.external.machineRole=true"),
    ("an external store with a secret and a role", {"store": {"enabled": False, "external": {"existingSecret": "a", "machineRole": True}}},
     "- store.external.existingSecret and store.external.machineRole are both set: choose one"),
    ("an external store over http", {"store": {"enabled": False, "external": {"existingSecret": "a", "endpoint": "http://minio:9000"}}},
     "- store.external.endpoint http://minio:9000 would carry keys and objects unencrypted: use https, or say insecure=true on a network that you trust"),
    ("the secret of the store that is not there", {"store": {"enabled": False, "existingSecret": "a", "external": {"existingSecret": "b"}}},
     "- store.existingSecret is for the server of this release and store.enabled is false: name the secret in store.external.existingSecret"),
    ("no certificates without saying so", nested("tls.source", "none"),
     "- tls.source is none: everybody who reaches a service would be an operator, unencrypted. Choose generated, certManager or existingSecrets, or say insecure=true on a network that you trust"),
    ("cert-manager without an issuer", nested("tls.source", "certManager"),
     "- tls.source is certManager and tls.certManager.issuerRef.name is empty: name the Issuer that signs"),
    ("an issuer that is not used", nested("tls.certManager.issuerRef.name", "ca"),
     "- tls.certManager.issuerRef.name is set and tls.source is generated: say tls.source=certManager, or leave it empty"),
    ("a renewal longer than the certificate", {"tls": {"source": "certManager", "certManager": {"issuerRef": {"name": "ca"}, "duration": "24h", "renewBefore": "48h"}}},
     "- tls.certManager.renewBefore 48h is not shorter than tls.certManager.duration 24h"),
    ("generated certificates that end before they are renewed", nested("tls.generated", {"days": 30, "renewAfterDays": 30}),
     "- tls.generated.renewAfterDays 30 is not less than tls.generated.days 30"),
    ("a secret missing among one's own", {"tls": {"source": "existingSecrets", "existingSecrets": {
        "dataset": "a", "training": "b", "registry": "c", "inference": "d"}}},
     "- tls.source is existingSecrets and tls.existingSecrets.operator is empty: name a secret with tls.crt, tls.key and ca.crt"),
    ("a secret that is not used", nested("tls.existingSecrets.registry", "own"),
     "- tls.existingSecrets.registry is set and tls.source is generated: say tls.source=existingSecrets, or leave it empty"),
    ("no certificate asked for and no issuer", nested("tls.requireClientCertificate", False),
     "- tls.requireClientCertificate is false and access.issuers is empty: callers could show neither a certificate nor a token; name an issuer, or require certificates"),
    ("rules that nobody asks for", {"insecure": True, "tls": {"source": "none"}, "access": {"issuers": [ISSUER]}},
     "- access.issuers or access.grants are set and tls.source is none, so nobody would be asked who they are: choose another tls.source, or leave access empty"),
    ("tokens without TLS", {"insecure": True, "tls": {"source": "none"}, "serviceAccountTokens": {"enabled": True, "issuer": "https://a", "jwks": "https://a/k"}},
     "- serviceAccountTokens.enabled is true and tls.source is none: tokens are only ever sent over TLS; choose another tls.source"),
    ("tokens of an unknown issuer", nested("serviceAccountTokens.enabled", True),
     "- serviceAccountTokens.enabled is true and serviceAccountTokens.issuer or .jwks is empty: say who issues the cluster's tokens and where its keys are"),
    ("keys in a file that is not mounted", nested("access.issuers", [{**ISSUER, "jwks": "/etc/terroir/jwks/a.json"}]),
     "- access.issuers: jwks /etc/terroir/jwks/a.json of https://login.example.com is a file and access.jwksConfigMap is empty: name the ConfigMap that holds it"),
    ("one issuer twice", {"access": {"issuers": [ISSUER]}, "serviceAccountTokens": {"enabled": True, "issuer": ISSUER["issuer"], "jwks": "https://a/k"}},
     "- access.issuers and serviceAccountTokens.issuer both name https://login.example.com: leave it out of access.issuers"),
    ("weights without a claim", nested("inference.model", {"source": "pvc", "id": "sd15"}),
     "- inference.model.source is pvc and inference.model.pvc.claimName is empty"),
    ("weights from two places", nested("inference.model", {"source": "pvc", "id": "sd15", "pvc": {"claimName": "a"}, "bucket": {"url": "s3://models/sd15"}}),
     "- inference.model.bucket.url is set and inference.model.source is pvc: say inference.model.source=bucket, or leave it empty"),
    ("the tiny model under another name", nested("inference.model.id", "sd15"),
     "- inference.model.source is embedded, which is terroir-tiny: leave inference.model.id and .path as they are, or say where the weights of sd15 are"),
    ("other weights under the tiny model's name", nested("inference.model", {"source": "image", "image": {"reference": "a/b:1"}}),
     "- inference.model.id is terroir-tiny, the embedded model, and inference.model.source is image: give these weights an identifier of their own"),
    ("the store's keys for another service", nested("inference.model", {"source": "bucket", "id": "sd15", "bucket": {"url": "s3://models/a", "endpoint": "https://s3.example.com"}}),
     "- inference.model.bucket.endpoint is set and inference.model.bucket.existingSecret is empty: the store's keys are not shown to another service; name a secret"),
    ("two autoscalers", nested("inference.autoscaling", {"hpa": {"enabled": True}, "keda": {"enabled": True}}),
     "- inference.autoscaling.hpa and inference.autoscaling.keda are both enabled: choose one, they would undo each other's work"),
    ("an autoscaler without a measure", nested("inference.autoscaling.hpa", {"enabled": True, "cpuUtilizationPercent": 0}),
     "- inference.autoscaling.hpa is enabled with neither cpuUtilizationPercent nor queueDepth: say what to scale by"),
    ("least above most", nested("inference.autoscaling", {"minReplicas": 5, "maxReplicas": 2}),
     "- inference.autoscaling.minReplicas 5 exceeds maxReplicas 2"),
    ("a cooldown shorter than the load of a model", nested("inference.autoscaling.keda", {"enabled": True, "cooldownSeconds": 60}),
     "- inference.autoscaling.keda.cooldownSeconds 60 is not longer than inference.startupSeconds 300: pods would be removed that have just loaded their model"),
    ("a fallback above most", nested("inference.autoscaling.keda", {"enabled": True, "fallback": {"replicas": 9}}),
     "- inference.autoscaling.keda.fallback.replicas 9 exceeds inference.autoscaling.maxReplicas 4"),
    ("a rollout that cannot move", nested("inference.rollout.maxSurge", "0%"),
     "- inference.rollout.maxSurge and maxUnavailable are both 0: nothing could be rolled out"),
    ("signatures of nobody", nested("inference.signaturePolicy", "require"),
     "- inference.signaturePolicy is require and inference.trustedKeys is empty: no signature could be trusted"),
    ("two Ray clusters", nested("training.externalRay.dashboardUrl", "http://ray:8265"),
     "- ray.enabled is true and training.externalRay is set: say ray.enabled=false to use the external cluster, or leave training.externalRay empty"),
    ("GPUs that no worker has", nested("training.gpusPerJob", 1),
     "- training.gpusPerJob is 1 and no group of ray.workerGroups has a GPU: jobs would wait for ever"),
    ("GPUs in the training pod", {"training": {"gpusPerJob": 1}, "ray": {"enabled": False}},
     "- training.gpusPerJob is 1 and jobs run in the training pod, which has no GPU: enable ray, or name training.externalRay.dashboardUrl"),
    ("two groups of one name", {"ray": {"workerGroups": defaults()["ray"]["workerGroups"] * 2}},
     "- ray.workerGroups has two groups with the name workers"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "line"), [row[1:] for row in SCHEMA], ids=[row[0] for row in SCHEMA])
def test_what_the_schema_refuses_is_named(values: dict[str, Any], line: str, chart: Chart) -> None:
    told = chart.refusal(values)
    assert any(one.strip().startswith(line) for one in told.splitlines()), told


@pytest.mark.parametrize(("values", "line"), [row[1:] for row in CONFLICTS], ids=[row[0] for row in CONFLICTS])
def test_options_that_contradict_each_other_are_named_with_the_next_step(
    values: dict[str, Any], line: str, chart: Chart
) -> None:
    told = chart.refusal(values)
    assert CONFLICT in told
    assert line in told.splitlines(), told


def test_all_contradictions_are_told_at_once(chart: Chart) -> None:
    values = {
        "tls": {"source": "none"}, "store": {"enabled": False},
        "inference": {"autoscaling": {"hpa": {"enabled": True}, "keda": {"enabled": True}}},
    }  # fmt: skip
    lines = [one for one in chart.refusal(values).splitlines() if one.startswith("- ")]
    assert len(lines) == 3


def test_image_volumes_are_refused_where_kubernetes_has_none(chart: Chart) -> None:
    values = nested("inference.model", {"source": "image", "id": "sd15", "image": {"reference": "a/b:1"}})
    line = "- inference.model.source is image and Kubernetes v1.32.0 has no image volumes (1.33 or later): choose pvc or bucket"
    assert line in chart.refusal(values, kube_version="1.32").splitlines()
    assert chart.render(values, kube_version="1.33")


def test_an_older_kubernetes_is_refused(chart: Chart) -> None:
    assert "chart requires kubeVersion: >=1.32.0-0 which is incompatible with Kubernetes v1.31.0" in chart.refusal({}, kube_version="1.31")


def test_every_contradiction_that_the_chart_knows_is_tried_above() -> None:
    """A message that no test shows may never come."""
    template = (ROOT / "charts" / "terroir" / "templates" / "_conflicts.tpl").read_text()
    conditions = [line for line in template.splitlines() if line and not line.startswith(("{{", " "))]
    shown = " ".join(line for _, _, line in CONFLICTS)
    untried = [line for line in conditions if not _shape(line).search(shown)]
    assert untried == UNTRIED


UNTRIED = [
    line for line in (
        "serviceAccountTokens.jwks {{ $tokens.jwks }} is a file and access.jwksConfigMap is empty: name the ConfigMap that holds it",
        # Its own test above.
        "inference.model.source is image and Kubernetes {{ .Capabilities.KubeVersion.Version }} has no image volumes (1.33 or later): choose pvc or bucket",
        "inference.model.bucket.endpoint {{ $model.bucket.endpoint }} would carry keys unencrypted: use https, or say insecure=true on a network that you trust",
        "training.externalRay.existingSecret is set and training.externalRay.dashboardUrl is empty",
        "ray.workerGroups: minReplicas {{ .minReplicas }} of {{ .name }} exceeds maxReplicas {{ .maxReplicas }}",
    )
]  # fmt: skip


def _shape(line: str) -> Any:
    import re

    return re.compile(".+?".join(re.escape(part) for part in re.split(r"\{\{.*?\}\}", line)))


def _objects(part: Any, path: str = "") -> Any:
    if isinstance(part, dict):
        if part.get("type") == "object":
            yield path, part
        for key, value in part.items():
            yield from _objects(value, f"{path}/{key}")
    elif isinstance(part, list):
        for number, value in enumerate(part):
            yield from _objects(value, f"{path}/{number}")


def test_the_schema_is_closed_at_every_level() -> None:
    found = list(_objects(schema()))
    assert len(found) > 50
    for path, part in found:
        # Maps (labels, annotations, keys) state what their values are.
        assert part.get("additionalProperties") is False or (
            isinstance(part.get("additionalProperties"), dict) and "propertyNames" in part
        ), path


def test_every_value_is_described() -> None:
    for path, part in _objects(schema()):
        for name, value in part.get("properties", {}).items():
            assert value.get("description"), f"{path}/{name} has no description"


def test_the_defaults_are_whole_and_each_is_asked_for() -> None:
    def compare(stated: dict[str, Any], part: dict[str, Any], path: str) -> None:
        properties = part.get("properties")
        if properties is None or "$ref" in part:
            return
        assert stated.keys() == properties.keys(), path
        assert set(part["required"]) == stated.keys(), path
        for name, value in stated.items():
            if isinstance(value, dict):
                compare(value, properties[name], f"{path}.{name}")

    compare(defaults(), schema(), "")


def test_the_table_of_messages_in_the_docs_is_this_one() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    for name, _, line in (*SCHEMA, *CONFLICTS):
        assert f"| {name} | `{line.removeprefix('- ')}`" in page, name
