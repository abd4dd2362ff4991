"""Every scenario: linted, and taken by the oldest and the newest Kubernetes that the chart names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.chart.manifests import of_kind, pod_templates
from tests.chart.rendering import CHART, NEWEST, OLDEST, Chart, Document, Refused
from tests.chart.scenarios import ALL, CI
from tests.chart.soundness import faults
from tests.chart.validation import CUSTOM, problems

SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


def test_the_oldest_and_newest_minor_are_those_that_the_chart_and_the_validator_name() -> None:
    stated = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    assert stated == f">={OLDEST}.0-0"
    known = [
        tuple(map(int, found.groups()))
        for one in SCHEMAS.iterdir()
        if (found := re.match(r"v(\d+)\.(\d+)\.0-local$", one.name))
    ]
    assert "{}.{}".format(*max(known)) == NEWEST


@pytest.mark.parametrize("scenario", CI)
def test_lints_without_a_warning(scenario: str, chart: Chart) -> None:
    done = chart.lint(CI[scenario])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("scenario", ALL)
def test_renders_documents_that_kubernetes_takes(scenario: str, version: str, chart: Chart) -> None:
    try:
        documents = chart.render(ALL[scenario], kube_version=version)
    except Refused as refused:
        assert version == OLDEST
        assert "has no image volumes" in str(refused)
        return
    assert len(documents) > 20
    assert [one for document in documents for one in problems(document, version)] == []
    assert faults(documents) == []


def test_the_validators_see_a_misspelt_field_in_each_kind(chart: Chart) -> None:
    """Else the approval above would mean little."""
    kinds: dict[str, Document] = {}
    for scenario in ALL.values():
        for document in chart.render(scenario):
            kinds.setdefault(document["kind"], document)
    assert {"Deployment", "RayCluster", "ScaledObject", "ServiceMonitor", "PodMonitor", "Certificate"} <= kinds.keys()
    for kind, document in kinds.items():
        part = "spec" if "spec" in document else "metadata"
        misspelt = json.loads(json.dumps(document))
        misspelt[part]["notAField"] = 1
        assert problems(misspelt, NEWEST), f"{kind} passes with an unknown field"
    worker = json.loads(json.dumps(kinds["RayCluster"]))
    worker["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["imagePullPolic"] = "Always"
    assert problems(worker, NEWEST)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubeconform_agrees(version: str, chart: Chart, tool: Callable[[str], str], tmp_path: Path) -> None:
    """Another validator, over the same schemas: a second opinion on every built-in kind of each scenario in ci/."""
    program, number, skipped = tool("kubeconform"), 0, 0
    schemas, manifests = tmp_path / "schemas", tmp_path / "manifests"
    _readable(SCHEMAS / f"v{version}.0-local-strict", schemas)
    manifests.mkdir()
    for values in (*CI.values(), ALL["everything"]):
        try:
            documents = chart.render(values, kube_version=version)
        except Refused:
            continue
        for document in documents:
            if document["apiVersion"] in CUSTOM:
                skipped += 1
            else:
                number += 1
                (manifests / f"{number}.json").write_text(json.dumps(document))
    location = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    done = subprocess.run(
        [program, "-strict", "-summary", "-output=json", f"-schema-location={location}", str(manifests)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert done.returncode == 0, told["resources"][:5]
    assert told["summary"] == {"valid": number, "invalid": 0, "errors": 0, "skipped": 0}
    assert number > 120
    assert skipped >= 5


def _readable(schemas: Path, target: Path) -> None:
    """Copies that refer to each other as files: by their own identifiers they are pages of kubernetes.io."""
    target.mkdir()
    for path in schemas.glob("*.json"):
        if path.name != "all.json":
            text = re.sub(
                r'"\$id": "[^"]*",?', "", path.read_text().replace("/api/_definitions.json", "_definitions.json")
            )
            (target / path.name).write_text(re.sub(r",\s*}", "}", text))


@pytest.mark.parametrize("scenario", ALL)
def test_every_object_says_to_whom_it_belongs(scenario: str, chart: Chart) -> None:
    for document in chart.render(ALL[scenario]):
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "style"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        namespaced = document["kind"] != "PriorityClass"
        assert document["metadata"].get("namespace") == ("demo" if namespaced else None)


def test_two_releases_in_a_namespace_share_no_name_and_no_pods(chart: Chart) -> None:
    first = chart.render({})
    second = chart.render({"fullnameOverride": "other"})
    names = {(one["kind"], one["metadata"]["name"]) for one in first}
    assert not names & {(one["kind"], one["metadata"]["name"]) for one in second}
    for document in of_kind(first, "Deployment"):
        assert document["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] == "style"


def test_nothing_of_the_console_is_there_before_the_console_is(chart: Chart) -> None:
    components = {pods.component for pods in pod_templates(chart.render({}))}
    assert components == {"dataset", "training", "registry", "inference", "store", "ray-head", "ray-worker", "test"}


def test_the_ray_of_the_chart_is_the_one_that_is_locked(chart: Chart) -> None:
    locked = (CHART.parents[1] / "requirements" / "all.txt").read_text()
    (cluster,) = of_kind(chart.render({}), "RayCluster")
    assert f"\nray=={cluster['spec']['rayVersion']} " in locked


def test_the_package_holds_the_schema(chart: Chart, tmp_path: Path) -> None:
    """One line in .helmignore would make every typing mistake pass, silently."""
    shutil.copytree(CHART, tmp_path / "terroir")
    subprocess.run(
        [chart.helm, "package", str(tmp_path / "terroir"), f"--destination={tmp_path}"], check=True, capture_output=True
    )
    done = subprocess.run(
        ["tar", "-tzf", str(tmp_path / "terroir-0.1.0.tgz")], check=True, capture_output=True, text=True
    )
    assert "terroir/values.schema.json" in done.stdout.splitlines()
    assert not any("/ci/" in line for line in done.stdout.splitlines())
