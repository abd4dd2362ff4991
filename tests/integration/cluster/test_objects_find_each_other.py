"""Objects name each other by label, port and kind; a cluster accepts a wrong name and does nothing. Here it is seen."""

from __future__ import annotations

from functools import partial

from tests.integration.cluster.pod_templates import pods_of
from tests.integration.cluster.release import Release
from tests.tools.cluster_client import Manifest, wait_until


def matches(selector: Manifest, labels: dict[str, str]) -> bool:
    holds = [labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()]
    for one in selector.get("matchExpressions", ()):
        match one["operator"]:
            case "In":
                holds.append(labels.get(one["key"]) in one["values"])
            case "NotIn":
                holds.append(labels.get(one["key"]) not in one["values"])
            case other:
                raise NotImplementedError(other)
    return all(holds)


def labels_of(one: Manifest) -> dict[str, str]:
    found: dict[str, str] = one["metadata"].get("labels", {})
    return found


def test_each_service_has_a_ready_endpoint_for_each_port(release: Release) -> None:
    """The endpoints are the controller manager's: its reading of selectors and of named target ports."""
    slices = release.cluster.items("endpointslices", release.namespace)
    services = release.items("services")
    assert services
    for service in services:
        name = service["metadata"]["name"]
        own = [one for one in slices if labels_of(one)["kubernetes.io/service-name"] == name]
        ready = [one for one in own for point in one["endpoints"] or () if point["conditions"]["ready"]]
        assert ready, f"no ready pod behind {name}"
        wanted = {port.get("name", "") for port in service["spec"]["ports"]}
        assert {port.get("name", "") for one in ready for port in one["ports"]} == wanted, name


def test_each_budget_counts_pods(release: Release) -> None:
    for budget in release.items("poddisruptionbudgets"):
        assert budget["status"]["expectedPods"] > 0, budget["metadata"]["name"]


def test_each_claim_is_bound(release: Release) -> None:
    for claim in release.items("persistentvolumeclaims"):
        assert claim["status"]["phase"] == "Bound", claim["metadata"]["name"]


def test_each_autoscaler_finds_what_it_scales(release: Release) -> None:
    """HPAs as their controller says itself; KEDA, which makes HPAs of ScaledObjects, does not run here."""

    def able(name: str) -> bool:
        status = release.cluster.get("horizontalpodautoscaler", name, release.namespace)["status"]
        return any(one["type"] == "AbleToScale" and one["status"] == "True" for one in status.get("conditions", ()))

    for scaler in release.items("horizontalpodautoscalers"):
        name = scaler["metadata"]["name"]
        wait_until(partial(able, name), f"{name} finds {scaler['spec']['scaleTargetRef']}")
    deployments = {one["metadata"]["name"] for one in release.items("deployments")}
    for scaled in release.items("scaledobjects.keda.sh"):
        assert scaled["spec"]["scaleTargetRef"]["name"] in deployments


def test_each_monitor_selects_a_port_that_a_service_has(release: Release) -> None:
    services = release.items("services")
    for monitor in release.items("servicemonitors.monitoring.coreos.com"):
        chosen = [one for one in services if matches(monitor["spec"]["selector"], labels_of(one))]
        assert chosen, f"{monitor['metadata']['name']} selects no service"
        ports = {port.get("name") for one in chosen for port in one["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            assert endpoint["port"] in ports


def test_each_network_policy_selects_a_pod(release: Release) -> None:
    ray = [pod for one in release.items("rayclusters.ray.io") for pod in pods_of(one)]  # no KubeRay makes them here
    hooks = [one for one in release.rendered() if one["kind"] == "Pod"]
    everybody = [labels_of(pod) for pod in (*release.items("pods"), *ray, *hooks)]
    for policy in release.items("networkpolicies"):
        selector = policy["spec"]["podSelector"]
        assert any(matches(selector, labels) for labels in everybody), policy["metadata"]["name"]
