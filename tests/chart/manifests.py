"""Questions to rendered documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.chart.rendering import Document

SERVICES = ("dataset", "training", "registry", "inference")


@dataclass(frozen=True)
class PodTemplate:
    """Pods that a document makes."""

    where: str
    metadata: dict[str, Any]
    spec: dict[str, Any]
    owner: Document

    @property
    def component(self) -> str:
        return str(self.metadata["labels"]["app.kubernetes.io/component"])

    def containers(self) -> list[dict[str, Any]]:
        """All of them, those that run first among them."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    def main(self) -> dict[str, Any]:
        """The container that stays."""
        (container,) = self.spec["containers"]
        found: dict[str, Any] = container
        return found


def pod_templates(documents: Iterable[Document]) -> Iterator[PodTemplate]:
    """Of every kind that has any; Ray's autoscaler, which KubeRay adds to the head, is added here as well."""
    for document in documents:
        name, spec = f"{document['kind']}/{document['metadata']['name']}", document.get("spec", {})
        if document["kind"] == "Pod":
            yield PodTemplate(name, document["metadata"], spec, document)
        elif "template" in spec and "spec" in spec["template"]:
            yield PodTemplate(name, spec["template"]["metadata"], spec["template"]["spec"], document)
        elif document["kind"] == "RayCluster":
            head = spec["headGroupSpec"]["template"]
            options = spec["autoscalerOptions"]
            scaler = {"name": "autoscaler", "env": options["env"], "volumeMounts": options["volumeMounts"],
                      "securityContext": options["securityContext"], "resources": options["resources"],
                      "image": head["spec"]["containers"][0]["image"]}  # fmt: skip
            together = {**head["spec"], "containers": [*head["spec"]["containers"], scaler]}
            yield PodTemplate(f"{name} head", head["metadata"], together, document)
            for group in spec["workerGroupSpecs"]:
                template = group["template"]
                yield PodTemplate(f"{name} {group['groupName']}", template["metadata"], template["spec"], document)


def of_kind(documents: Iterable[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


def named(documents: Iterable[Document], kind: str, ending: str) -> Document:
    """The one whose name ends so."""
    (found,) = (one for one in of_kind(documents, kind) if one["metadata"]["name"].endswith(ending))
    return found


def environment(container: dict[str, Any]) -> dict[str, str]:
    """Variables; one from a secret has the value `secret NAME/KEY`."""
    found: dict[str, str] = {}
    for variable in container.get("env", ()):
        assert variable["name"] not in found, f"{variable['name']} is set twice"
        if "valueFrom" in variable:
            reference = variable["valueFrom"]["secretKeyRef"]
            found[variable["name"]] = f"secret {reference['name']}/{reference['key']}"
        else:
            found[variable["name"]] = variable["value"]
    return found
