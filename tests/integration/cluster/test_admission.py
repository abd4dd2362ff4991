"""Each object of each scenario, judged by the API server that would take it."""

from __future__ import annotations

import copy

from tests.integration.cluster.release import Release
from tests.tools.cluster_client import ClusterClient


def test_each_object_is_accepted_without_a_warning(scenario: str, cluster: ClusterClient, namespace: str) -> None:
    """A server-side dry run: schema with strict fields, defaults, validation, admission at the restricted level."""
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    objects = Release(cluster, scenario, namespace, name="dry").rendered()
    answer = cluster.try_create(objects, namespace=namespace, dry_run=True)
    assert answer.returncode == 0, answer.stderr
    assert not answer.stderr
    assert len(answer.stdout.splitlines()) == len(objects)


def test_a_field_that_a_kind_does_not_have_is_refused_in_each_kind(
    scenario: str, cluster: ClusterClient, namespace: str
) -> None:
    """Else the acceptance above would mean little, least of all for kinds whose definitions came from elsewhere."""
    kinds = {one["kind"]: one for one in Release(cluster, scenario, namespace, name="dry").rendered() if "spec" in one}
    assert len(kinds) > 3
    for kind, manifest in kinds.items():
        misspelt = copy.deepcopy(manifest)
        misspelt["spec"]["notAField"] = 1
        answer = cluster.try_create([misspelt], namespace=namespace, dry_run=True)
        assert answer.returncode != 0, f"{kind} accepts any field"
        assert 'unknown field "spec.notAField"' in answer.stderr
