"""A Kubernetes control plane for all tests here, and restricted namespaces of their own for them."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.tools import TOOLS, path_of
from tests.integration.cluster.release import Release, scenarios
from tests.tools.cluster_client import ClusterClient
from tests.tools.control_plane import ControlPlane, missing_tools
from tests.tools.lacking import skip_without

_HERE = Path(__file__).parent
_USUAL = ("cpu-kind", "many-gpus")
_RAY_DEFINITION = Path(__file__).resolve().parents[2] / "chart" / "crds" / "raycluster.yaml"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that install take two scenarios unless TERROIR_CLUSTER_SCENARIOS=all; those that only ask take each."""
    chosen = scenarios() if os.environ.get("TERROIR_CLUSTER_SCENARIOS") == "all" else list(_USUAL)
    if "release" in metafunc.fixturenames:
        metafunc.parametrize("release", chosen, indirect=True, scope="session")
    if "scenario" in metafunc.fixturenames:
        metafunc.parametrize("scenario", chosen)
    if "each_scenario" in metafunc.fixturenames:
        metafunc.parametrize("each_scenario", scenarios())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.slow)


def _helm() -> str | None:
    built = next(path_of(tool) for tool in TOOLS if tool.name == "helm")
    return str(built) if built.exists() else shutil.which("helm")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterClient]:
    """The administrator's client of a running control plane; without its programs tests are skipped loudly.

    TERROIR_REQUIRE_TOOLS=cluster makes that a failure.
    """
    helm = _helm()
    lacking = [*missing_tools(), *([] if helm else ["helm"])]
    if helm is None or lacking:
        told = f"a Kubernetes control plane ({', '.join(lacking)})"
        skip_without(request.config, "cluster", told, target="tools-cluster")
    control_plane = ControlPlane(tmp_path_factory.mktemp("control-plane"), helm)
    try:
        control_plane.start(definitions=(_RAY_DEFINITION,))
        yield control_plane.client
    finally:
        control_plane.stop()


@pytest.fixture(scope="session")
def release(request: pytest.FixtureRequest, cluster: ClusterClient) -> Iterator[Release]:
    """The chart as installed with one scenario's values; tests leave it as they found it."""
    made = Release(cluster, request.param, make_namespace(cluster))
    made.install()
    yield made
    made.uninstall()


@pytest.fixture
def namespace(cluster: ClusterClient) -> str:
    """A namespace that enforces the restricted level, of this test alone."""
    return make_namespace(cluster)


def make_namespace(cluster: ClusterClient) -> str:
    """A fresh namespace at Pod Security's restricted level."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
    cluster.create([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}])
    return name
