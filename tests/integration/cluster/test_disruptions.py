"""Nodes are drained for an upgrade of the cluster; the disruption budgets keep each service answering."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cluster.release import Release, is_ready
from tests.tools.cluster_client import ClusterClient, wait_until
from tests.tools.simulated_nodes import NODES

NAMES = [node["metadata"]["name"] for node in NODES]


@pytest.fixture
def nodes_back(cluster: ClusterClient) -> Iterator[None]:
    yield
    cluster.kubectl("uncordon", *NAMES)


def replicas(release: Release) -> dict[str, int]:
    """Component → pods that it should have."""
    return {component(one): one["spec"]["replicas"] for one in release.items("deployments,statefulsets")}


def promised(release: Release) -> dict[str, int]:
    """Component → pods that its budget promises."""
    return {component(one): one["status"]["desiredHealthy"] for one in release.items("poddisruptionbudgets")}


def ready(release: Release) -> dict[str, int]:
    """Component → pods that are ready."""
    pods = release.items("pods")
    return {name: sum(is_ready(pod) for pod in pods if component(pod) == name) for name in replicas(release)}


def component(one: dict[str, dict[str, dict[str, str]]]) -> str:
    return one["metadata"]["labels"]["app.kubernetes.io/component"]


def drain(release: Release, *nodes: str, seconds: int) -> str:
    """kubectl's words; "" if all pods of the release went in time. kubectl tries again every 5 seconds."""
    done = release.cluster.try_kubectl(
        "drain", *nodes, "--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={seconds}s",
        f"--pod-selector=app.kubernetes.io/instance={release.name}",
    )  # fmt: skip
    return done.stderr if done.returncode else ""


def test_each_component_of_several_pods_has_a_budget_and_no_other(release: Release) -> None:
    """A budget over a single pod would make every drain of its node hang."""
    assert set(promised(release)) == {name for name, count in replicas(release).items() if count > 1}


def test_a_drained_node_gives_its_pods_to_others(release: Release, nodes_back: None) -> None:
    assert drain(release, "cpu-a", seconds=60) == ""
    wait_until(lambda: ready(release) == replicas(release), "all pods are ready on other nodes")


def test_a_drain_of_all_nodes_stops_where_the_budgets_say(release: Release, nodes_back: None) -> None:
    """Evicted pods find no other node, so each service comes down to what its budget promises, and no lower."""
    budgets = promised(release)
    refusal = drain(release, *NAMES, seconds=4)
    assert ("violate the pod's disruption budget" in refusal) == bool(budgets)
    assert ready(release) == {name: budgets.get(name, 0) for name in replicas(release)}
    release.cluster.kubectl("uncordon", *NAMES)
    wait_until(lambda: ready(release) == replicas(release), "all evicted pods are back")
