"""A Kubernetes control plane for all tests here, and restricted namespaces of their own for them."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.tools import TOOLS, path_of
from tests.tools.cluster_client import ClusterClient
from tests.tools.control_plane import ControlPlane, missing_tools

_HERE = Path(__file__).parent
_LACKING = pytest.StashKey[list[str]]()
_RAY_DEFINITION = Path(__file__).resolve().parents[2] / "chart" / "crds" / "raycluster.yaml"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One loud line where the control plane could not be had."""
    if lacking := config.stash.get(_LACKING, None):
        terminalreporter.write_line(
            f"NOT TESTED: the chart on a Kubernetes control plane; {', '.join(lacking)} missing (make tools-cluster)",
            red=True,
        )


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
        if "cluster" in os.environ.get("TERROIR_REQUIRE_TOOLS", "").split(","):
            pytest.fail(f"{', '.join(lacking)} required here (TERROIR_REQUIRE_TOOLS=cluster); run make tools-cluster")
        request.config.stash[_LACKING] = lacking
        pytest.skip(f"{', '.join(lacking)} missing")
    control_plane = ControlPlane(tmp_path_factory.mktemp("control-plane"), helm)
    try:
        control_plane.start(definitions=(_RAY_DEFINITION,))
        yield control_plane.client
    finally:
        control_plane.stop()


@pytest.fixture
def new_namespace(cluster: ClusterClient) -> Callable[[], str]:
    """Makes a namespace that enforces the restricted level; left to the control plane's end."""
    return lambda: make_namespace(cluster)


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
