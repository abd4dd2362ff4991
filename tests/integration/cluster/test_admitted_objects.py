"""Each object of each scenario, judged by the API server that would take it."""

from __future__ import annotations

import copy

from tests.integration.cluster.pod_templates import needed_for_admission
from tests.integration.cluster.release import Release, scenarios
from tests.tools.cluster_client import ClusterClient


def test_each_object_is_accepted_without_a_warning(each_scenario: str, cluster: ClusterClient, namespace: str) -> None:
    """A server-side dry run: schema with strict fields, defaults, validation, admission at the restricted level."""
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    objects = Release(cluster, each_scenario, namespace, name=namespace).rendered()
    needed = needed_for_admission(objects)
    with cluster.created(needed, namespace=namespace):
        others = [one for one in objects if one not in needed]
        answer = cluster.try_create(others, namespace=namespace, dry_run=True)
    assert answer.returncode == 0, answer.stderr
    assert not answer.stderr
    assert len(answer.stdout.splitlines()) == len(others)


def test_a_field_that_a_kind_does_not_have_is_refused_in_each_kind(
    each_scenario: str, cluster: ClusterClient, namespace: str
) -> None:
    """Else the acceptance above would mean little, least of all for kinds whose definitions came from elsewhere."""
    kinds = {
        one["kind"]: one for one in Release(cluster, each_scenario, namespace, name="dry").rendered() if "spec" in one
    }
    assert len(kinds) > 3
    for kind, manifest in kinds.items():
        misspelt = copy.deepcopy(manifest)
        misspelt["spec"]["notAField"] = 1
        answer = cluster.try_create([misspelt], namespace=namespace, dry_run=True)
        assert answer.returncode != 0, f"{kind} accepts any field"
        assert 'unknown field "spec.notAField"' in answer.stderr


def test_the_kinds_of_other_operators_are_among_them(cluster: ClusterClient) -> None:
    """The test above says nothing of a kind that no scenario has."""
    seen = {one["kind"] for name in scenarios() for one in Release(cluster, name, "default").rendered()}
    assert {"RayCluster", "ScaledObject", "ServiceMonitor", "PodMonitor", "PrometheusRule", "Certificate"} <= seen
    assert {"HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "PriorityClass"} <= seen
