"""Pods that need GPUs go where GPUs are, as many as there are; the others wait and say why."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any

import pytest

from tests.integration.cluster.pod_templates import gpus_of, needed_for_admission, pods_of
from tests.integration.cluster.release import Release, scenarios, values_of
from tests.tools.cluster_client import ClusterClient, wait_until
from tests.tools.simulated_nodes import GPU, GPUS_OF

COPIES = 20
WITH_GPUS = ("many-gpus", "one-gpu")
WITH_RAY = [name for name in scenarios() if values_of(name).get("ray", {}).get("enabled", True)]


def free_gpus(cluster: ClusterClient) -> dict[str, int]:
    """Devices of each node that no pod has."""
    free = Counter(GPUS_OF)
    for pod in json.loads(cluster.kubectl("get", "pods", "--all-namespaces", "--output=json"))["items"]:
        if node := pod["spec"].get("nodeName"):
            free[node] -= gpus_of(pod)
    return {node: free[node] for node in GPUS_OF}


def is_waiting_for_gpus(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(one.get("reason") == "Unschedulable" and f"Insufficient {GPU}" in one["message"] for one in conditions)


def settled(cluster: ClusterClient, namespace: str) -> bool:
    pods = cluster.items("pods", namespace)
    return all(pod["status"]["phase"] == "Running" or is_waiting_for_gpus(pod) for pod in pods)


@pytest.mark.parametrize("scenario_with_gpus", WITH_GPUS)
def test_gpu_nodes_are_filled_and_what_is_too_much_stays_pending(
    scenario_with_gpus: str, cluster: ClusterClient, namespace: str
) -> None:
    objects = Release(cluster, scenario_with_gpus, namespace, name=namespace).rendered()
    (wanted,) = [
        pod for one in objects if one["kind"] in {"Deployment", "StatefulSet"} for pod in pods_of(one) if gpus_of(pod)
    ]
    copies = [copy.deepcopy(wanted) for _ in range(COPIES)]
    for index, one in enumerate(copies):
        one["metadata"]["name"] = f"copy-{index}"
    with cluster.created([*needed_for_admission(objects), *copies], namespace=namespace):
        wait_until(lambda: settled(cluster, namespace), "each pod runs or is said to be unschedulable for want of GPUs")
        running = [pod for pod in cluster.items("pods", namespace) if pod["status"]["phase"] == "Running"]
        assert 0 < len(running) < COPIES
        assert {pod["spec"]["nodeName"] for pod in running} <= set(GPUS_OF)
        for node, free in free_gpus(cluster).items():
            assert 0 <= free < gpus_of(wanted), node


def test_pods_without_gpus_stay_off_the_gpu_nodes(release: Release) -> None:
    """GPU nodes cost the most; their taint is tolerated by those pods alone that use what they have."""
    for pod in release.items("pods"):
        on_gpu_node = pod["spec"]["nodeName"] in GPUS_OF
        assert on_gpu_node == bool(gpus_of(pod)), (pod["metadata"]["name"], pod["spec"]["nodeName"])


@pytest.mark.parametrize("scenario_with_ray", WITH_RAY)
def test_ray_pods_are_admitted_and_placed(scenario_with_ray: str, cluster: ClusterClient, namespace: str) -> None:
    """As KubeRay would make them from the RayCluster, its autoscaler and its waiting container among them."""
    objects = Release(cluster, scenario_with_ray, namespace, name=namespace).rendered()
    pods = [pod for one in objects if one["kind"] == "RayCluster" for pod in pods_of(one)]
    assert len(pods) > 1
    with cluster.created([*needed_for_admission(objects), *pods], namespace=namespace):
        wait_until(lambda: settled(cluster, namespace), "each Ray pod runs, or waits for a GPU that another test has")
        for pod in cluster.items("pods", namespace):
            if node := pod["spec"].get("nodeName"):
                assert (node in GPUS_OF) == bool(gpus_of(pod)), pod["metadata"]["name"]
