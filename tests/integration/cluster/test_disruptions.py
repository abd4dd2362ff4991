"""A node is drained for an upgrade of the cluster; the disruption budgets keep each service answering."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cluster.release import Release, is_ready
from tests.tools.cluster_client import ClusterClient, Manifest, wait_until
from tests.tools.simulated_nodes import NODES

NAMES = [node["metadata"]["name"] for node in NODES]
DRAIN = ("--ignore-daemonsets", "--delete-emptydir-data", "--force")


@pytest.fixture
def nodes_back(cluster: ClusterClient) -> Iterator[None]:
    yield
    cluster.kubectl("uncordon", *NAMES)


def ready_pods(release: Release, budget: Manifest) -> int:
    selector = ",".join(f"{key}={value}" for key, value in budget["spec"]["selector"]["matchLabels"].items())
    return sum(map(is_ready, release.cluster.items("pods", release.namespace, selector)))


def test_a_drain_of_all_nodes_stops_where_a_budget_says(release: Release, nodes_back: None) -> None:
    """Evicted pods find no other node, so each service comes down to what its budget promises, and no lower."""
    budgets = release.items("poddisruptionbudgets")
    assert budgets
    promised = {one["metadata"]["name"]: one["status"]["desiredHealthy"] for one in budgets}
    before = {one["metadata"]["name"]: ready_pods(release, one) for one in budgets}
    drained = release.cluster.try_kubectl("drain", *NAMES, *DRAIN, "--timeout=4s", f"--pod-selector={ours(release)}")
    assert drained.returncode != 0
    assert "violate the pod's disruption budget" in drained.stderr + drained.stdout
    for budget in budgets:
        name = budget["metadata"]["name"]
        assert ready_pods(release, budget) == promised[name] < before[name], name
    release.cluster.kubectl("uncordon", *NAMES)

    def are_back() -> bool:
        return all(ready_pods(release, one) == before[one["metadata"]["name"]] for one in budgets)

    wait_until(are_back, "all evicted pods are back")


def ours(release: Release) -> str:
    return f"app.kubernetes.io/instance={release.name}"
