"""What a stolen token of one of our pods could do: nothing, but for the Ray autoscaler, which counts and asks."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.cluster.release import Release
from tests.tools.cluster_client import ClusterClient

PRECIOUS = ("secrets", "configmaps", "pods", "deployments.apps", "serviceaccounts", "rolebindings", "nodes")


def rules(cluster: ClusterClient, account: str, namespace: str) -> set[str]:
    """All that RBAC allows an account in a namespace, `group/resource:verb [names]`, as the API server says itself."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    told = cluster.kubectl(
        "create", "--raw=/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", "--filename=-", f"--as={account}",
        # Impersonation names the groups that a service account is in; without them rules bound to these are not seen.
        "--as-group=system:serviceaccounts", f"--as-group=system:serviceaccounts:{account.split(':')[2]}",
        "--as-group=system:authenticated",
        stdin=json.dumps(review),
    )  # fmt: skip
    status: dict[str, Any] = json.loads(told)["status"]
    assert not status["incomplete"], status.get("evaluationError")
    resources = {
        f"{group or 'core'}/{resource}:{verb} {sorted(rule.get('resourceNames') or ())}"
        for rule in status["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    return resources | {
        f"{url}:{verb}"
        for rule in status["nonResourceRules"]
        for url in rule["nonResourceURLs"]
        for verb in rule["verbs"]
    }


def accounts(release: Release) -> list[str]:
    """Every service account that the release made or that its pods use."""
    made = {item["metadata"]["name"] for item in release.items("serviceaccounts")}
    used = {pod["spec"]["serviceAccountName"] for pod in release.items("pods")}
    return sorted(f"system:serviceaccount:{release.namespace}:{name}" for name in made | used)


def test_pods_use_accounts_of_their_own_and_mount_no_token(release: Release) -> None:
    for pod in release.items("pods"):
        assert pod["spec"]["serviceAccountName"] != "default", pod["metadata"]["name"]
        # As admitted: the API server adds this volume where neither pod nor account declines it.
        mounted = [volume["name"] for volume in pod["spec"].get("volumes", ())]
        assert not [name for name in mounted if name.startswith("kube-api-access")], pod["metadata"]["name"]


def test_an_account_may_do_no_more_than_any_account_of_the_cluster(release: Release) -> None:
    """But the autoscaler's, whose rights are listed here one by one."""
    anybody = rules(release.cluster, "system:serviceaccount:default:nobody", "default")
    found = accounts(release)
    assert len(found) > 1
    for account in found:
        extra = rules(release.cluster, account, release.namespace) - anybody
        assert not extra, f"{account} may {sorted(extra)}"


def test_no_account_may_read_what_is_precious(release: Release) -> None:
    """Each tries it."""
    for account in accounts(release):
        answer = release.cluster.try_kubectl(
            "get", ",".join(PRECIOUS), f"--namespace={release.namespace}", f"--as={account}"
        )
        assert not answer.stdout
        assert answer.stderr.count("is forbidden") == len(PRECIOUS), answer.stderr
