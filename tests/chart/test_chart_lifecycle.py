"""Starting, scaling, draining and ending of pods."""

from __future__ import annotations

import pytest

from tests.chart.manifests import SERVICES, environment, named, of_kind, pod_templates
from tests.chart.rendering import Chart, merged, nested
from tests.chart.scenarios import ALL, CI, OPTIONS

CLEANUP_SECONDS = 2.5
"""What a server takes after its drain (terroir.common.server)."""


def seconds(value: str) -> float:
    return float(value)


@pytest.mark.parametrize("scenario", ALL)
def test_kubernetes_waits_longer_than_a_drain_takes(scenario: str, chart: Chart) -> None:
    for pods in pod_templates(chart.render(ALL[scenario])):
        if pods.component in SERVICES:
            stated, prefix = environment(pods.main()), f"TERROIR_{pods.component.upper()}_DRAIN"
            drain = seconds(stated[f"{prefix}_DELAY_SECONDS"]) + seconds(stated[f"{prefix}_TIMEOUT_SECONDS"])
            assert pods.spec["terminationGracePeriodSeconds"] >= drain + CLEANUP_SECONDS + 5


def test_the_drain_of_inference_outlasts_the_longest_generation_that_the_values_name(chart: Chart) -> None:
    values = nested("inference.drain", {"delaySeconds": 20, "timeoutSeconds": 1800})
    (pods,) = (one for one in pod_templates(chart.render(values)) if one.component == "inference")
    assert environment(pods.main())["TERROIR_INFERENCE_DRAIN_TIMEOUT_SECONDS"] == "1800"
    assert pods.spec["terminationGracePeriodSeconds"] == 20 + 1800 + 15


def test_callers_have_time_to_look_elsewhere_before_calls_are_refused(chart: Chart) -> None:
    """Longer than two failed looks at readiness, after which the pod leaves the Service."""
    for pods in pod_templates(chart.render({})):
        if pods.component == "inference":
            probe = pods.main()["readinessProbe"]
            assert (
                seconds(environment(pods.main())["TERROIR_INFERENCE_DRAIN_DELAY_SECONDS"])
                >= probe["periodSeconds"] * probe["failureThreshold"]
            )


@pytest.mark.parametrize("scenario", ALL)
def test_probes_ask_the_plain_port_and_a_model_has_time_to_load(scenario: str, chart: Chart) -> None:
    values = ALL[scenario]
    for pods in pod_templates(chart.render(values)):
        if pods.component in SERVICES:
            container = pods.main()
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert ports["metrics"] == int(environment(container)[f"TERROIR_{pods.component.upper()}_METRICS_PORT"])
            assert ports["grpc"] == int(environment(container)[f"TERROIR_{pods.component.upper()}_PORT"])
            for probe, path in (
                ("startupProbe", "/readyz"),
                ("readinessProbe", "/readyz"),
                ("livenessProbe", "/healthz"),
            ):
                assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}
            start = container["startupProbe"]
            stated = values.get(pods.component, {}).get(
                "startupSeconds", {"registry": 300, "inference": 300}.get(pods.component, 120)
            )
            assert start["periodSeconds"] * start["failureThreshold"] >= stated


def test_a_budget_leaves_all_but_one_pod_and_one_pod_alone_has_none(chart: Chart) -> None:
    """A budget for a single pod either says nothing or blocks every drain."""
    budgets = {
        one["metadata"]["name"]: one["spec"] for one in of_kind(chart.render(CI["many-gpus"]), "PodDisruptionBudget")
    }
    assert sorted(budgets) == [f"style-terroir-{name}" for name in ("dataset", "inference", "registry", "training")]
    for spec in budgets.values():
        assert spec["maxUnavailable"] == 1
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    alone = {one["metadata"]["name"] for one in of_kind(chart.render(CI["cpu-kind"]), "PodDisruptionBudget")}
    assert alone == set()
    off = merged(CI["many-gpus"], {"podDisruptionBudgets": {"enabled": False}})
    assert of_kind(chart.render(off), "PodDisruptionBudget") == []


def test_pods_spread_over_zones_and_nodes(chart: Chart) -> None:
    for pods in pod_templates(chart.render({})):
        if pods.component in SERVICES:
            keys = [one["topologyKey"] for one in pods.spec["topologySpreadConstraints"]]
            assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
            for one in pods.spec["topologySpreadConstraints"]:
                assert one["labelSelector"]["matchLabels"].items() <= pods.metadata["labels"].items()


def test_keda_scales_by_the_queue_and_by_latency_and_removes_nothing_that_has_just_loaded(chart: Chart) -> None:
    (scaled,) = of_kind(chart.render(CI["many-gpus"]), "ScaledObject")
    spec = scaled["spec"]
    queue, latency = spec["triggers"]
    assert queue["metadata"]["query"] == (
        'sum(terroir_inference_queue_depth{namespace="demo",service="style-terroir-inference"})'
    )
    assert queue["metricType"] == "AverageValue", "KEDA's fallback works with this kind alone"
    assert "histogram_quantile(0.95" in latency["metadata"]["query"]
    assert 'method="/terroir.inference.v1.InferenceService/Generate"' in latency["metadata"]["query"]
    (inference,) = (one for one in pod_templates(chart.render(CI["many-gpus"])) if one.component == "inference")
    start = inference.main()["startupProbe"]
    loading = start["periodSeconds"] * start["failureThreshold"]
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert loading < spec["cooldownPeriod"] == down["stabilizationWindowSeconds"]
    assert spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
    without = merged(CI["many-gpus"], nested("inference.autoscaling.keda", {"p95LatencySeconds": 0}))
    assert len(of_kind(chart.render(without), "ScaledObject")[0]["spec"]["triggers"]) == 1


def test_an_autoscaler_of_kubernetes_takes_processor_or_queue(chart: Chart) -> None:
    (by_processor,) = of_kind(chart.render(CI["no-monitoring"]), "HorizontalPodAutoscaler")
    assert [one["type"] for one in by_processor["spec"]["metrics"]] == ["Resource"]
    (by_queue,) = of_kind(chart.render(OPTIONS["queue-scaled-hpa"]), "HorizontalPodAutoscaler")
    (metric,) = by_queue["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "terroir_inference_queue_depth"


def test_each_replica_of_inference_has_an_address_and_the_others_share_one(chart: Chart) -> None:
    services = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]
        for one in of_kind(chart.render({}), "Service")
    }
    assert services["inference"]["clusterIP"] == "None"
    for component, spec in services.items():
        assert spec["type"] == "ClusterIP"
        assert ("clusterIP" in spec) == (component == "inference")


def test_ray_asks_for_a_token_and_shows_its_head_to_nobody_outside(chart: Chart) -> None:
    for scenario in ("defaults", "many-gpus", "ray-token-of-ours"):
        (cluster,) = of_kind(chart.render(ALL[scenario]), "RayCluster")
        spec = cluster["spec"]
        assert spec["authOptions"]["mode"] == "token"
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
        assert spec["enableInTreeAutoscaling"] is True
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        (training,) = (one for one in pod_templates(chart.render(ALL[scenario])) if one.component == "training")
        stated = environment(training.main())
        secret = spec["authOptions"].get("secretName", cluster["metadata"]["name"])
        assert stated["TERROIR_TRAINING_RAY_AUTH_TOKEN"] == f"secret {secret}/auth_token"
        assert (
            stated["TERROIR_TRAINING_RAY_DASHBOARD_URL"]
            == f"http://{cluster['metadata']['name']}-head-svc.demo.svc:8265"
        )


def test_kuberay_finds_the_head_by_labels_that_the_chart_leaves_alone(chart: Chart) -> None:
    """Its Service selects app.kubernetes.io/name=kuberay; a name of ours would leave it without pods."""
    for pods in pod_templates(chart.render({})):
        if pods.component.startswith("ray-"):
            assert "app.kubernetes.io/name" not in pods.metadata["labels"]


@pytest.mark.parametrize("scenario", ["weights-on-a-claim", "one-gpu", "weights-in-the-store", "weights-elsewhere"])
def test_weights_are_where_registry_trainers_and_inference_look(scenario: str, chart: Chart) -> None:
    folder = "/models/sd/v1-5" if scenario == "weights-on-a-claim" else "/models"
    pods = {one.component: one for one in pod_templates(chart.render(ALL[scenario]))}
    assert environment(pods["inference"].main())["TERROIR_INFERENCE_BASE_MODEL"] == folder
    assert environment(pods["inference"].main())["TERROIR_INFERENCE_BASE"] == "sd15"
    for service in ("registry", "training"):
        sources = environment(pods[service].main())[f"TERROIR_{service.upper()}_BASE_SOURCES"]
        assert sources == f'{{"sd15":"{folder}"}}'
    for component in ("inference", "registry", "ray-worker"):
        (mount,) = (one for one in pods[component].main()["volumeMounts"] if one["name"] == "model")
        assert mount == {"name": "model", "mountPath": "/models", "readOnly": True}
        copying = pods[component].spec.get("initContainers", [])
        assert bool(copying) == ("bucket" in ALL[scenario]["inference"]["model"])
    for component in ("training", "ray-head", "dataset"):
        volumes = {one["name"] for one in pods[component].spec["volumes"]}
        assert "model" not in volumes, component


def test_weights_are_copied_by_a_command_that_exists_with_options_that_it_has(chart: Chart) -> None:
    from terroir.store import fetch

    for scenario in ("weights-in-the-store", "weights-elsewhere", "external-s3"):
        for pods in pod_templates(chart.render(ALL[scenario])):
            for container in pods.spec.get("initContainers", ()):
                assert container["command"] == ["python", "-m", fetch.__name__]
                # Refused by the parser with status 2; with the arguments right it goes on and finds no bucket.
                assert "--help" not in container["args"]
                arguments = [one for one in container["args"] if not one.startswith("--endpoint")]
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(fetch, "S3Store", _refuse)
                    assert fetch.main(arguments) == 1


def _refuse(*_: object) -> None:
    raise OSError("no network in this test")


def test_training_on_gpus_asks_ray_for_them(chart: Chart) -> None:
    (training,) = (one for one in pod_templates(chart.render(CI["one-gpu"])) if one.component == "training")
    assert environment(training.main())["TERROIR_TRAINING_GPUS_PER_JOB"] == "1"


def test_without_spare_gpus_a_new_version_waits_for_the_old_to_leave(chart: Chart) -> None:
    strategy = named(chart.render(CI["one-gpu"]), "Deployment", "-inference")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 0, "maxUnavailable": 1}
    usual = named(chart.render({}), "Deployment", "-inference")["spec"]["strategy"]["rollingUpdate"]
    assert usual == {"maxSurge": 1, "maxUnavailable": 0}


def test_services_go_before_training_where_classes_are_made(chart: Chart) -> None:
    documents = chart.render(CI["many-gpus"])
    classes = {one["metadata"]["name"]: one["value"] for one in of_kind(documents, "PriorityClass")}
    used = {pods.component: pods.spec.get("priorityClassName") for pods in pod_templates(documents)}
    assert classes[used["ray-worker"] or ""] < classes[used["inference"] or ""]
    assert set(used.values()) == set(classes)
    (own,) = {
        pods.spec["priorityClassName"]
        for pods in pod_templates(chart.render(OPTIONS["placed"]))
        if pods.component in SERVICES
    }
    assert own == "high"


def test_objects_outlive_the_release_unless_told_otherwise(chart: Chart) -> None:
    kept = named(chart.render({}), "StatefulSet", "-store")["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert kept["whenDeleted"] == "Retain"
    gone = named(chart.render(CI["cpu-kind"]), "StatefulSet", "-store")["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert gone["whenDeleted"] == "Delete"


def test_a_ray_in_the_training_pod_is_never_there_twice(chart: Chart) -> None:
    """Each replica would see the other's attempts as lost, and run them again."""
    alone = named(chart.render(CI["cpu-kind"]), "Deployment", "-training")["spec"]["strategy"]["rollingUpdate"]
    assert alone == {"maxSurge": 0, "maxUnavailable": 1}
    usual = named(chart.render({}), "Deployment", "-training")["spec"]["strategy"]["rollingUpdate"]
    assert usual == {"maxSurge": 1, "maxUnavailable": 0}
