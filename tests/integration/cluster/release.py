"""The chart, installed with the values of one of its scenarios."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.tools.cluster_client import ClusterClient, Manifest

ROOT: Final = Path(__file__).resolve().parents[3]
CHART: Final = ROOT / "charts" / "terroir"
# Without it pods stay pending; secrets and config maps that do not exist would keep only a kubelet from starting them.
PREREQUISITES: Final[dict[str, Manifest]] = {
    "one-gpu": {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "base-models"},
        "spec": {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "10Gi"}}},
    },
}
_WAIT: Final = ("--wait", "--timeout=90s")


def scenarios() -> list[str]:
    """Names of the chart's scenarios: charts/terroir/ci/<name>-values.yaml."""
    return sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))


def values_of(scenario: str) -> dict[str, Any]:
    """What a scenario sets."""
    found: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{scenario}-values.yaml").read_text())
    return found


@dataclass(frozen=True)
class Release:
    """One name in one namespace, installed or not."""

    cluster: ClusterClient
    scenario: str
    namespace: str
    name: str = "style"

    def install(self, *extra: str) -> None:
        """Returns once all that it made is ready."""
        self.prepare()
        self.cluster.helm("install", self.name, *self._what(), *_WAIT, *extra)
        self._scale_to_the_least()

    def _scale_to_the_least(self) -> None:
        """What autoscalers do at once; HPAs work here, KEDA, which would make one of a ScaledObject, does not."""
        least = {
            one["spec"]["scaleTargetRef"]["name"]: one["spec"][field]
            for kind, field in (("horizontalpodautoscalers", "minReplicas"), ("scaledobjects", "minReplicaCount"))
            for one in self.items(kind)
        }
        for name, count in least.items():
            self.cluster.kubectl(
                "scale", f"deployment/{name}", f"--replicas={count}", f"--namespace={self.namespace}", "--timeout=30s"
            )
        if least:
            self.cluster.kubectl(
                "rollout", "status", *(f"deployment/{name}" for name in least), f"--namespace={self.namespace}"
            )

    def prepare(self) -> None:
        """Make what the scenario's values say is there already."""
        if found := PREREQUISITES.get(self.scenario):
            self.cluster.kubectl("apply", "--filename=-", f"--namespace={self.namespace}", stdin=yaml.safe_dump(found))

    def try_upgrade(self, *extra: str, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
        """An upgrade, with the scenario's values and those of `extra`."""
        return self.cluster.try_helm("upgrade", self.name, *self._what(chart), *extra)

    def upgrade(self, *extra: str, chart: Path = CHART) -> None:
        """The same, until it is ready."""
        done = self.try_upgrade(*_WAIT, *extra, chart=chart)
        assert done.returncode == 0, done.stderr

    def rollback(self, revision: int) -> None:
        """Back to a revision, until it is ready."""
        self.cluster.helm("rollback", self.name, str(revision), f"--namespace={self.namespace}", *_WAIT)

    def delete(self, kind: str, name: str) -> None:
        """Lose an object of the release behind Helm's back."""
        self.cluster.kubectl("delete", kind, name, f"--namespace={self.namespace}")

    def uninstall(self) -> None:
        """Returns once its objects are gone."""
        self.cluster.helm("uninstall", self.name, f"--namespace={self.namespace}", *_WAIT)

    def test(self) -> None:
        """`helm test`: its pods are admitted, placed and said to complete (nothing runs in them)."""
        self.cluster.helm("test", self.name, f"--namespace={self.namespace}", "--timeout=60s")

    def rendered(self, *extra: str) -> list[Manifest]:
        """All objects, those of hooks among them, as the chart renders them for this cluster."""
        text = self.cluster.helm("template", self.name, *self._what(), "--skip-tests=false", *extra)
        return [document for document in yaml.safe_load_all(text) if document]

    def history(self) -> list[dict[str, Any]]:
        """Revisions, the oldest first."""
        told = self.cluster.helm("history", self.name, f"--namespace={self.namespace}", "--output=json")
        revisions: list[dict[str, Any]] = yaml.safe_load(told)
        return revisions

    def items(self, kind: str, component: str = "") -> list[Manifest]:
        """Objects of a kind that belong to the release, or to one component of it."""
        labels = f"app.kubernetes.io/instance={self.name}"
        if component:
            labels += f",app.kubernetes.io/component={component}"
        return self.cluster.items(kind, self.namespace, labels)

    def _what(self, chart: Path = CHART) -> tuple[str, ...]:
        values = CHART / "ci" / f"{self.scenario}-values.yaml"
        return (str(chart), f"--namespace={self.namespace}", f"--values={values}")


def is_ready(pod: Manifest) -> bool:
    """Whether a pod serves: ready, and not about to end."""
    conditions = pod["status"].get("conditions", [])
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
