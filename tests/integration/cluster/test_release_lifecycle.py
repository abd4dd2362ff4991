"""Install, upgrade, roll back, uninstall: what an operator does with Helm, against a real API server."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.cluster.release import CHART, Release, is_ready
from tests.tools.cluster_client import ClusterClient, wait_until

# More devices than any node of the test cluster has: a mistake that no schema can see.
BROKEN = ("--set", "inference.gpu.count=64")


def test_all_pods_of_an_installed_release_are_ready(release: Release) -> None:
    deployments = release.items("deployments")
    assert deployments
    for deployment in deployments:
        assert deployment["status"]["readyReplicas"] == deployment["spec"]["replicas"] > 0
    for pod in release.items("pods"):
        assert is_ready(pod), pod["metadata"]["name"]


def test_its_test_hooks_are_admitted_and_leave_nothing(release: Release) -> None:
    before = names(release, "pods")
    release.test()
    assert names(release, "pods") == before


def test_an_upgrade_to_a_new_version_replaces_every_pod_while_services_stay_ready(
    release: Release, tmp_path: Path
) -> None:
    before = names(release, "pods") - names(release, "pods", "store")  # whose image has versions of its own
    with lowest_ready(release) as lowest:
        release.upgrade(chart=version_of_the_chart("99.0.0", tmp_path))
        release.upgrade()  # and back again
    assert not names(release, "pods") & before
    assert all(map(is_ready, release.items("pods")))
    for name in never_missing(release):
        assert lowest[name] > 0, lowest


def test_a_broken_upgrade_rolls_back_and_no_pod_that_served_is_lost(release: Release) -> None:
    """The new pod finds no node; Helm gives up after its timeout and restores what was there."""
    revision, before = release.history()[-1]["revision"], names(release, "pods")
    specs = {one["metadata"]["name"]: one["spec"] for one in release.items("deployments")}
    with lowest_ready(release) as lowest:
        broken = release.try_upgrade(*BROKEN, "--rollback-on-failure", "--timeout=5s")
    assert broken.returncode != 0
    assert "rolled back" in broken.stderr, broken.stderr
    assert [one["status"] for one in release.history() if one["revision"] > revision] == ["failed", "deployed"]
    assert {one["metadata"]["name"]: one["spec"] for one in release.items("deployments")} == specs
    kept = {name for name in before if any(name.startswith(f"{deployment}-") for deployment in never_missing(release))}
    assert kept
    wait_until(lambda: all(map(is_ready, release.items("pods"))), "all pods are ready")
    assert kept <= names(release, "pods")
    for name in never_missing(release):
        assert lowest[name] > 0, lowest


def test_uninstalling_leaves_nothing(scenario: str, cluster: ClusterClient, namespace: str) -> None:
    """Of all kinds that the server knows, custom ones among them, in any namespace or none."""
    release = Release(cluster, scenario, namespace, name="brief")
    release.prepare()
    before = cluster.everything()
    release.install()
    made = cluster.everything() - before
    assert {"Deployment", "Pod", "Service", "Secret"} <= {one.split()[0] for one in made}
    release.uninstall()
    wait_until(lambda: not cluster.everything() - before, f"nothing is left of {scenario}", seconds=20)


def never_missing(release: Release) -> list[str]:
    """Deployments that promise to have no pod less during a rollout."""
    return [
        one["metadata"]["name"]
        for one in release.items("deployments")
        if one["spec"]["strategy"].get("rollingUpdate", {}).get("maxUnavailable") in {0, "0%"}
    ]


@contextmanager
def lowest_ready(release: Release) -> Iterator[dict[str, int]]:
    """The smallest number of ready pods of each deployment meanwhile, from the server's stream of every change."""
    lowest: dict[str, int] = {}
    row = '{.metadata.name} 0{.status.readyReplicas}{"\\n"}'
    watch = release.cluster.start_kubectl(
        "get", "deployments", "--watch", f"--namespace={release.namespace}", f"--output=jsonpath={row}"
    )
    assert watch.stdout is not None
    deployments = len(release.items("deployments"))
    lines = [watch.stdout.readline() for _ in range(deployments)]  # the watch has begun once it tells the first state
    try:
        yield lowest
    finally:
        watch.terminate()
        rest, _ = watch.communicate(timeout=10)
        for line in [*lines, *rest.splitlines()]:
            name, ready = line.split()
            lowest[name] = min(lowest.get(name, int(ready)), int(ready))


def version_of_the_chart(version: str, folder: Path) -> Path:
    """A copy of the chart with another appVersion, and so with other images."""
    newer = folder / "terroir"
    shutil.copytree(CHART, newer)
    description = newer / "Chart.yaml"
    changed, count = re.subn(r"(?m)^appVersion:.*$", f'appVersion: "{version}"', description.read_text())
    assert count == 1
    description.write_text(changed)
    return newer


def names(release: Release, kind: str, component: str = "") -> set[str]:
    return {one["metadata"]["name"] for one in release.items(kind, component)}
