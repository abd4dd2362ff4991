"""Faults that schemas do not see: what does not fit together between and within documents."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tests.chart.manifests import environment, of_kind, pod_templates
from tests.chart.rendering import Document

_LABEL: Final = re.compile(r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$")
_NAME: Final = re.compile(r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
_SHORT: Final = ("Service", "StatefulSet")
_RAY_NAME_CHARACTERS: Final = 53  # KubeRay's limit


def faults(documents: Sequence[Document]) -> list[str]:
    """All of them, in words."""
    return [*_names(documents), *_pods(documents), *_selections(documents), *_references(documents)]


def _names(documents: Sequence[Document]) -> Iterator[str]:
    for key, count in Counter((one["kind"], one["metadata"]["name"]) for one in documents).items():
        if count > 1:
            yield f"{key} is there {count} times"
    for document in documents:
        name = document["metadata"]["name"]
        limit = 63 if document["kind"] in _SHORT else 253
        limit = _RAY_NAME_CHARACTERS if document["kind"] == "RayCluster" else limit
        if not _NAME.match(name) or len(name) > limit:
            yield f"{document['kind']} {name!r} is no name of at most {limit} characters"
        for key, value in document["metadata"].get("labels", {}).items():
            if not isinstance(value, str) or len(value) > 63 or not _LABEL.match(value):
                yield f"{document['kind']} {name}: label {key} has the value {value!r}"


def _pods(documents: Sequence[Document]) -> Iterator[str]:
    for pods in pod_templates(documents):
        volumes = Counter(volume["name"] for volume in pods.spec.get("volumes", ()))
        claims = pods.owner.get("spec", {}).get("volumeClaimTemplates", ())
        volumes.update(claim["metadata"]["name"] for claim in claims)
        mounted: set[str] = set()
        for container in pods.containers():
            environment(container)  # asserts that no variable is set twice
            paths = Counter(mount["mountPath"] for mount in container.get("volumeMounts", ()))
            yield from (f"{pods.where}: {path} is mounted twice" for path, count in paths.items() if count > 1)
            mounted |= {mount["name"] for mount in container.get("volumeMounts", ())}
            ports = Counter(port["name"] for port in container.get("ports", ()))
            yield from (f"{pods.where}: port {name} is there twice" for name, count in ports.items() if count > 1)
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                port = container.get(probe, {}).get("httpGet", {}).get("port", 0)
                if isinstance(port, str) and port not in ports:
                    yield f"{pods.where}: {probe} asks port {port}, which there is not"
        yield from (f"{pods.where}: volume {name} is there twice" for name, count in volumes.items() if count > 1)
        yield from (f"{pods.where}: no volume {name}" for name in mounted - set(volumes))
        yield from (f"{pods.where}: volume {name} is not used" for name in set(volumes) - mounted)
        ours = {one["metadata"]["name"] for one in of_kind(documents, "ServiceAccount")}
        if pods.spec["serviceAccountName"] not in ours:
            yield f"{pods.where}: no service account {pods.spec['serviceAccountName']}"


def _selections(documents: Sequence[Document]) -> Iterator[str]:
    templates = list(pod_templates(documents))
    labels = [pods.metadata["labels"] for pods in templates]

    def chosen(selector: dict[str, str]) -> list[dict[str, str]]:
        return [one for one in labels if selector.items() <= one.items()]

    for document in documents:
        where, spec = f"{document['kind']} {document['metadata']['name']}", document.get("spec", {})
        match document["kind"]:
            case "Service":
                pods = [one for one in templates if spec["selector"].items() <= one.metadata["labels"].items()]
                if len(pods) != 1:
                    yield f"{where} selects {len(pods)} kinds of pods"
                else:
                    there = {port["name"] for one in pods[0].spec["containers"] for port in one["ports"]}
                    for port in spec["ports"]:
                        if port["targetPort"] not in there:
                            yield f"{where}: its pods have no port {port['targetPort']}"
            case "Deployment" | "StatefulSet":
                if not chosen(spec["selector"]["matchLabels"]):
                    yield f"{where} does not select its own pods"
                if "app.kubernetes.io/version" in spec["selector"]["matchLabels"]:
                    yield f"{where}: its selector would change with the version, which is refused"
            case "PodDisruptionBudget":
                if len(chosen(spec["selector"]["matchLabels"])) != 1:
                    yield f"{where} does not select one kind of pods"
            case "HorizontalPodAutoscaler" | "ScaledObject":
                targets = {one["metadata"]["name"]: one for one in of_kind(documents, "Deployment")}
                target = targets.get(spec["scaleTargetRef"]["name"])
                if target is None:
                    yield f"{where} scales nothing"
                elif "replicas" in target["spec"]:
                    yield f"{where}: the Deployment states replicas, and each upgrade would undo the scaling"
                if not (spec.get("metrics") or spec.get("triggers")):
                    yield f"{where} scales by nothing"


def _references(documents: Sequence[Document]) -> Iterator[str]:
    """Secrets and ConfigMaps with names of ours that are not rendered."""
    made = {(one["kind"], one["metadata"]["name"]) for one in documents if one["kind"] in ("Secret", "ConfigMap")}
    made |= {("Secret", one["spec"]["secretName"]) for one in of_kind(documents, "Certificate")}
    # KubeRay makes one of the cluster's name.
    made |= {("Secret", one["metadata"]["name"]) for one in of_kind(documents, "RayCluster")}
    prefix = next(
        one["metadata"]["name"] for one in of_kind(documents, "NetworkPolicy") or of_kind(documents, "Service")
    )
    prefix = prefix.rsplit("-dataset")[0].rsplit("-default-deny")[0]
    for pods in pod_templates(documents):
        for kind, name in _referred(pods.spec, pods.containers()):
            if name.startswith(f"{prefix}-") and (kind, name) not in made:
                yield f"{pods.where}: {kind} {name} is not there"


def _referred(spec: dict[str, Any], containers: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for volume in spec.get("volumes", ()):
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
    for container in containers:
        for variable in container.get("env", ()):
            if "valueFrom" in variable:
                yield "Secret", variable["valueFrom"]["secretKeyRef"]["name"]
