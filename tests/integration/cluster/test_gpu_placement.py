"""Pods that need GPUs go where GPUs are, as many as there are; the others wait and say why."""

from __future__ import annotations

import copy
import json
from collections import Counter

import pytest

from tests.integration.cluster.pod_templates import accounts_of, gpus_of, pods_of
from tests.integration.cluster.release import Release
from tests.tools.cluster_client import ClusterClient, Manifest, wait_until
from tests.tools.simulated_nodes import GPU, GPUS_OF

COPIES = 20
WITH_GPUS = ("many-gpus", "one-gpu")


def free_gpus(cluster: ClusterClient) -> dict[str, int]:
    """Devices of each node that no pod has."""
    free = Counter(GPUS_OF)
    for pod in json.loads(cluster.kubectl("get", "pods", "--all-namespaces", "--output=json"))["items"]:
        if node := pod["spec"].get("nodeName"):
            free[node] -= gpus_of(pod)
    return {node: free[node] for node in GPUS_OF}


def is_waiting_for_gpus(pod: Manifest) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(one.get("reason") == "Unschedulable" and f"Insufficient {GPU}" in one["message"] for one in conditions)


@pytest.mark.parametrize("scenario_with_gpus", WITH_GPUS)
def test_gpu_nodes_are_filled_and_what_is_too_much_stays_pending(
    scenario_with_gpus: str, cluster: ClusterClient, namespace: str
) -> None:
    objects = Release(cluster, scenario_with_gpus, namespace).rendered()
    (wanted,) = [
        pod for one in objects if one["kind"] in {"Deployment", "StatefulSet"} for pod in pods_of(one) if gpus_of(pod)
    ]
    cluster.create(accounts_of(objects), namespace=namespace)
    fits = sum(free // gpus_of(wanted) for free in free_gpus(cluster).values())
    assert 0 < fits < COPIES
    copies = [copy.deepcopy(wanted) for _ in range(COPIES)]
    for index, one in enumerate(copies):
        one["metadata"]["name"] = f"copy-{index}"
    cluster.create(copies, namespace=namespace)

    def settled() -> bool:
        pods = cluster.items("pods", namespace)
        return all(pod["status"]["phase"] == "Running" or is_waiting_for_gpus(pod) for pod in pods)

    wait_until(settled, "each pod runs or is said to be unschedulable for want of GPUs")
    running = [pod for pod in cluster.items("pods", namespace) if pod["status"]["phase"] == "Running"]
    assert len(running) == fits
    used = Counter(pod["spec"]["nodeName"] for pod in running)
    assert set(used) <= set(GPUS_OF)
    assert all(free >= 0 for free in free_gpus(cluster).values())
    cluster.kubectl("delete", "pods", "--all", f"--namespace={namespace}")


def test_pods_without_gpus_stay_off_the_gpu_nodes(release: Release) -> None:
    """GPU nodes cost the most; their taint is tolerated by those pods alone that use what they have."""
    for pod in release.items("pods"):
        on_gpu_node = pod["spec"]["nodeName"] in GPUS_OF
        assert on_gpu_node == bool(gpus_of(pod)), (pod["metadata"]["name"], pod["spec"]["nodeName"])


def test_ray_pods_are_admitted_and_placed(scenario: str, cluster: ClusterClient, namespace: str) -> None:
    """As KubeRay would make them from the RayCluster, its autoscaler and its waiting container among them."""
    objects = Release(cluster, scenario, namespace).rendered()
    pods = [pod for one in objects if one["kind"] == "RayCluster" for pod in pods_of(one)]
    assert len(pods) > 1
    cluster.create(accounts_of(objects), namespace=namespace)
    cluster.create(pods, namespace=namespace)

    def settled() -> bool:
        found = cluster.items("pods", namespace)
        return all(pod["status"]["phase"] == "Running" or is_waiting_for_gpus(pod) for pod in found)

    wait_until(settled, "each Ray pod runs, or waits for a GPU that another test has")
    for pod in cluster.items("pods", namespace):
        if node := pod["spec"].get("nodeName"):
            assert (node in GPUS_OF) == bool(gpus_of(pod)), pod["metadata"]["name"]
    cluster.kubectl("delete", "pods", "--all", f"--namespace={namespace}")
