"""Every pod that the chart makes meets the restricted level of Pod Security, and more: nothing writes to its image."""

from __future__ import annotations

import pytest

from tests.chart.manifests import PodTemplate, pod_templates
from tests.chart.rendering import Chart
from tests.chart.scenarios import ALL

# What may be mounted: no hostPath, no device, nothing of the node.
VOLUMES = {"emptyDir", "secret", "configMap", "projected", "persistentVolumeClaim", "image"}
UNRESTRICTED = ("hostNetwork", "hostPID", "hostIPC", "hostUsers", "hostAliases")


def violations(pods: PodTemplate, *, assigned: bool = True) -> list[str]:
    """Against https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, field by field."""
    found: list[str] = []
    spec, security = pods.spec, pods.spec.get("securityContext", {})
    found += [name for name in UNRESTRICTED if name in spec]
    if spec.get("automountServiceAccountToken") is not False:
        found.append("the token of the service account is mounted")
    if spec.get("enableServiceLinks") is not False:
        found.append("Services put variables into its environment")
    if security.get("runAsNonRoot") is not True:
        found.append("may run as root")
    if assigned and (security.get("runAsUser"), security.get("runAsGroup"), security.get("fsGroup")) != (10001,) * 3:
        found.append("user")
    if assigned and security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        found.append("seccomp of the pod")
    found += [f"volume {one['name']}" for one in spec.get("volumes", ()) if not set(one) <= VOLUMES | {"name"}]
    for container in pods.containers():
        expected = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            **({"seccompProfile": {"type": "RuntimeDefault"}} if assigned else {}),
        }
        if container.get("securityContext") != expected:
            found.append(f"{container['name']}: {container.get('securityContext')}")
        found += [f"{container['name']}: port of the node" for port in container.get("ports", ()) if "hostPort" in port]
    return found


@pytest.mark.parametrize("scenario", ALL)
def test_every_pod_meets_the_restricted_level(scenario: str, chart: Chart) -> None:
    pods = list(pod_templates(chart.render(ALL[scenario])))
    assert len(pods) >= 5
    for one in pods:
        assert violations(one, assigned=scenario != "openshift") == [], one.where


def test_the_check_sees_each_violation(chart: Chart) -> None:
    """It is the test above that would be trusted; so it is tried on a pod with every fault."""
    pods = next(pod_templates(chart.render({})))
    assert violations(pods) == []
    spec = pods.spec
    container = spec["containers"][0]
    faults = [
        {**spec, "hostNetwork": True},
        {**spec, "automountServiceAccountToken": True},
        {**spec, "enableServiceLinks": True},
        {**spec, "securityContext": {**spec["securityContext"], "runAsNonRoot": False}},
        {**spec, "securityContext": {**spec["securityContext"], "runAsUser": 0}},
        {**spec, "securityContext": {**spec["securityContext"], "seccompProfile": {"type": "Unconfined"}}},
        {**spec, "volumes": [*spec["volumes"], {"name": "node", "hostPath": {"path": "/"}}]},
        {**spec, "containers": [{**container, "securityContext": {"privileged": True}}]},
        {**spec, "initContainers": [{**container, "securityContext": {}}]},
        {**spec, "containers": [{**container, "ports": [{"containerPort": 1, "hostPort": 1}]}]},
    ]
    for fault in faults:
        assert len(violations(PodTemplate(pods.where, pods.metadata, fault, pods.owner))) == 1


@pytest.mark.parametrize("scenario", ALL)
def test_every_container_says_what_it_needs(scenario: str, chart: Chart) -> None:
    """A namespace with a quota refuses pods that do not."""
    for pods in pod_templates(chart.render(ALL[scenario])):
        for container in pods.containers():
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), f"{pods.where} {container['name']}"
            assert "memory" in resources["limits"], f"{pods.where} {container['name']}"


@pytest.mark.parametrize("scenario", ALL)
def test_no_folder_of_a_pod_grows_without_a_limit(scenario: str, chart: Chart) -> None:
    for pods in pod_templates(chart.render(ALL[scenario])):
        for volume in pods.spec.get("volumes", ()):
            assert "emptyDir" not in volume or volume["emptyDir"].get("sizeLimit"), f"{pods.where} {volume['name']}"


def test_a_gpu_is_asked_for_limited_and_its_taint_tolerated(chart: Chart) -> None:
    pods = {one.where: one for one in pod_templates(chart.render(ALL["many-gpus"]))}
    for where, count in (
        ("Deployment/style-terroir-inference", 1), ("RayCluster/style-terroir-ray gpu-one", 1),
        ("RayCluster/style-terroir-ray gpu-eight", 8),
    ):  # fmt: skip
        container = pods[where].spec["containers"][0]
        assert container["resources"]["requests"]["nvidia.com/gpu"] == count
        assert container["resources"]["limits"]["nvidia.com/gpu"] == count
        toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        assert toleration in pods[where].spec["tolerations"]
    head = pods["RayCluster/style-terroir-ray head"]
    assert "tolerations" not in head.spec
    for where, one in pods.items():
        if "inference" not in where and "gpu" not in where:
            for container in one.containers():
                assert "nvidia.com/gpu" not in container["resources"]["requests"], where


def test_only_the_autoscaler_has_a_token_for_the_kubernetes_api(chart: Chart) -> None:
    at = "/var/run/secrets/kubernetes.io/serviceaccount"
    for scenario in ("many-gpus", "mtls", "everything"):
        holders = [
            (pods.component, container["name"])
            for pods in pod_templates(chart.render(ALL[scenario]))
            for container in pods.containers()
            for mount in container.get("volumeMounts", ())
            if mount["mountPath"].startswith(at) or mount["name"] == "kubernetes-api"
        ]
        assert holders == [("ray-head", "autoscaler")]


def test_a_token_for_other_services_is_for_no_other_audience(chart: Chart) -> None:
    for pods in pod_templates(chart.render(ALL["mtls"])):
        for volume in pods.spec["volumes"]:
            if volume["name"] == "token":
                (source,) = volume["projected"]["sources"]
                assert source["serviceAccountToken"]["audience"] == "terroir"


def test_pods_run_as_service_accounts_of_their_own(chart: Chart) -> None:
    used = {pods.component: pods.spec["serviceAccountName"] for pods in pod_templates(chart.render({}))}
    assert used.pop("test") == used["registry"]
    assert len(set(used.values())) == len(used)
    assert "default" not in used.values()
