"""Whether a Kubernetes API server would take a document, as far as schemas and common sense can tell without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import yaml

from scripts.tools import CLUSTER_TOOLS, path_of
from tests.chart.manifests import pod_templates
from tests.chart.rendering import Document

_HERE: Final = Path(__file__).parent
_OPERATORS: Final = ("prometheus-operator-crds", "keda-crds", "cert-manager-crds")


def problems(document: Document, version: str) -> list[str]:
    """What is wrong with a document for a version of Kubernetes, strictly: unknown fields are."""
    text = json.dumps(document, sort_keys=True)
    found = list(_problems(text, version))
    # Ray's pods are inside of a kind that Kubernetes does not know.
    if document["kind"] == "RayCluster":
        for pods in pod_templates([document]):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": pods.metadata, "spec": pods.spec}
            found += [f"{pods.where}: {one}" for one in _problems(json.dumps(pod, sort_keys=True), version)]
    return found


@lru_cache(maxsize=20_000)
def _problems(text: str, version: str) -> tuple[str, ...]:
    document = json.loads(text)
    where = f"{document['kind']}/{document['metadata'].get('name', '')}"
    if document["apiVersion"] in CUSTOM:
        return tuple(f"{where}: {one}" for one in _custom_problems(document))
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return (f"{where}: {'.'.join(map(str, error.path))}: {error.message}",)
    return ()


def _custom_problems(document: Document) -> Iterator[str]:
    for validator in _validators(document["apiVersion"], document["kind"]):
        for error in validator.iter_errors(document):
            yield f"{'.'.join(map(str, error.path))}: {error.message}"


@lru_cache
def _validators(api_version: str, kind: str) -> list[jsonschema.Draft202012Validator]:
    """Our own closed schema, and the operator's definition where `make tools-cluster` has brought it."""
    schemas = [*_ours(api_version, kind), *_theirs(api_version, kind)]
    assert schemas, f"no schema for {api_version} {kind}; add one to tests/chart/kinds.yaml"
    return [jsonschema.Draft202012Validator(one) for one in schemas]


def _ours(api_version: str, kind: str) -> Iterator[dict[str, Any]]:
    stated = yaml.safe_load((_HERE / "kinds.yaml").read_text(encoding="utf-8"))
    if f"{api_version}/{kind}" in stated:
        yield {**stated[f"{api_version}/{kind}"], "$defs": stated["$defs"]}
    for path in sorted((_HERE / "crds").glob("*.yaml")):
        yield from _definition(path, api_version, kind)


def _theirs(api_version: str, kind: str) -> Iterator[dict[str, Any]]:
    for tool in CLUSTER_TOOLS:
        if tool.name in _OPERATORS and path_of(tool).exists():
            for path in sorted(path_of(tool).glob(f"*{kind.lower()}s.yaml")):
                yield from _definition(path, api_version, kind)


def _definition(path: Path, api_version: str, kind: str) -> Iterator[dict[str, Any]]:
    spec = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["spec"]
    for version in spec["versions"]:
        if (f"{spec['group']}/{version['name']}", spec["names"]["kind"]) == (api_version, kind):
            yield closed(version["schema"]["openAPIV3Schema"], top=True)


def closed(part: Any, *, top: bool = False) -> Any:
    """A structural schema as the API server applies it with strict fields: what it does not list is refused."""
    if isinstance(part, list):
        return [closed(one) for one in part]
    if not isinstance(part, dict):
        return part
    # Patterns are Go's, formats remarks, and defaults not ours to fill in.
    made = {
        key: {name: closed(one) for name, one in value.items()} if key == "properties" else closed(value)
        for key, value in part.items()
        if key not in ("format", "default", "description", "pattern") and not key.startswith("x-")
    }
    open_ = part.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in part
    if "properties" in part and not open_:
        made["additionalProperties"] = False
        made["type"] = "object"
    if top:
        made["properties"]["metadata"] = {"type": "object"}
    if part.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return made


CUSTOM: Final = frozenset({"ray.io/v1", "monitoring.coreos.com/v1", "keda.sh/v1alpha1", "cert-manager.io/v1"})
"""API versions whose kinds are operators'."""
