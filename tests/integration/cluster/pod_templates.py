"""The pods that a scenario's objects lead to, as plain pods: those of deployments, and those that KubeRay makes."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from tests.tools.cluster_client import Manifest
from tests.tools.simulated_nodes import GPU


def pods_of(manifest: Manifest) -> list[Manifest]:
    """One pod of each template in an object; for a RayCluster the head and as many workers as it begins with."""
    name, spec = manifest["metadata"]["name"], manifest.get("spec", {})
    if manifest["kind"] == "RayCluster":
        return _ray_pods(name, spec)
    if "template" in spec and "spec" in spec["template"]:
        return [_pod(name, spec["template"])]
    return []


def needed_for_admission(objects: Iterable[Manifest]) -> list[Manifest]:
    """Service accounts and priority classes, without which no pod that names them is admitted."""
    return [one for one in objects if one["kind"] in {"ServiceAccount", "PriorityClass"}]


def gpus_of(pod: Manifest) -> int:
    """Devices that it asks for."""
    containers = pod["spec"]["containers"]
    return sum(int(one.get("resources", {}).get("limits", {}).get(GPU, 0)) for one in containers)


def _pod(name: str, template: Manifest) -> Manifest:
    metadata = {**template.get("metadata", {}), "name": name}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": copy.deepcopy(template["spec"])}


def _ray_pods(name: str, spec: dict[str, Any]) -> list[Manifest]:
    head = _pod(f"{name}-head", spec["headGroupSpec"]["template"])
    _label(head, name, "head", "headgroup")
    if spec.get("enableInTreeAutoscaling"):
        # KubeRay adds the autoscaler to the head's pod, with the security context of autoscalerOptions or none.
        options = spec.get("autoscalerOptions", {})
        head["spec"]["containers"].append({
            "name": "autoscaler",
            "image": options.get("image") or head["spec"]["containers"][0]["image"],
            **{key: options[key] for key in ("securityContext", "resources", "env", "volumeMounts") if key in options},
        })  # fmt: skip
    pods = [head]
    for group in spec.get("workerGroupSpecs", ()):
        for index in range(max(1, group.get("replicas", group.get("minReplicas", 0)))):
            worker = _pod(f"{name}-{group['groupName']}-{index}", group["template"])
            _label(worker, name, "worker", group["groupName"])
            ray = worker["spec"]["containers"][0]
            # KubeRay makes a worker wait for the head in an init container like the Ray container.
            waiting = {key: ray[key] for key in ("image", "securityContext") if key in ray}
            worker["spec"].setdefault("initContainers", []).append({"name": "wait-gcs-ready", **waiting})
            pods.append(worker)
    return pods


def _label(pod: Manifest, cluster: str, node_type: str, group: str) -> None:
    """As KubeRay does; network policies and services select by these."""
    labels = {
        "ray.io/cluster": cluster,
        "ray.io/node-type": node_type,
        "ray.io/group": group,
        "ray.io/is-ray-node": "yes",
    }
    pod["metadata"]["labels"] = {**pod["metadata"].get("labels", {}), **labels}
