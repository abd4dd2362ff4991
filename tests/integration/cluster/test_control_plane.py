"""The control plane that the chart is tried on refuses what a cluster refuses; else its approval would mean nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tools.cluster_client import ClusterClient, wait_until
from tests.tools.simulated_nodes import GPU, GPUS_OF

ROOT = Path(__file__).resolve().parents[3]
RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
TOLERATION = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}


def pod(name: str, *, security: dict[str, Any] = RESTRICTED, gpus: int = 0, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "example.com/nothing:1", "securityContext": security}
    if gpus:
        container["resources"] = {"limits": {GPU: str(gpus)}}
        spec["tolerations"] = [TOLERATION]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], **spec},
    }


def phase(cluster: ClusterClient, namespace: str, name: str) -> str:
    return str(cluster.get("pod", name, namespace)["status"]["phase"])


@pytest.mark.parametrize("missing", sorted(RESTRICTED))
def test_a_pod_below_the_restricted_level_is_refused(missing: str, cluster: ClusterClient, namespace: str) -> None:
    security = {name: value for name, value in RESTRICTED.items() if name != missing}
    refused = cluster.try_create([pod("bad", security=security)], namespace=namespace)
    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted' in refused.stderr
    assert missing.removesuffix("s") in refused.stderr


def test_a_restricted_pod_runs(cluster: ClusterClient, namespace: str) -> None:
    cluster.create([pod("good")], namespace=namespace)
    wait_until(lambda: phase(cluster, namespace, "good") == "Running", "the pod runs")


def test_a_misspelt_field_is_refused(cluster: ClusterClient, namespace: str) -> None:
    misspelt = pod("bad")
    misspelt["spec"]["containers"][0]["imagePullPolic"] = "Always"
    refused = cluster.try_create([misspelt], namespace=namespace, dry_run=True)
    assert refused.returncode != 0
    assert "imagePullPolic" in refused.stderr


def test_a_service_account_may_read_nothing_unless_it_is_allowed(cluster: ClusterClient, namespace: str) -> None:
    who = f"--as=system:serviceaccount:{namespace}:default"
    refused = cluster.try_kubectl("get", "secrets", f"--namespace={namespace}", who)
    assert refused.returncode != 0
    assert "is forbidden" in refused.stderr


def test_gpus_are_counted(cluster: ClusterClient, namespace: str) -> None:
    """Eight devices are on one node alone, nine on none, and a pod without a toleration goes to none of them."""
    cluster.create([pod("eight", gpus=8), pod("none"), pod("nine", gpus=9)], namespace=namespace)
    wait_until(lambda: phase(cluster, namespace, "eight") == "Running", "the pod with eight GPUs runs")
    wait_until(lambda: phase(cluster, namespace, "none") == "Running", "the pod without GPUs runs")
    assert cluster.get("pod", "eight", namespace)["spec"]["nodeName"] == "gpu-eight"
    assert cluster.get("pod", "none", namespace)["spec"]["nodeName"] not in GPUS_OF

    def unschedulable() -> bool:
        conditions = cluster.get("pod", "nine", namespace)["status"].get("conditions", [])
        return any(
            one.get("reason") == "Unschedulable" and f"Insufficient {GPU}" in one["message"] for one in conditions
        )

    wait_until(unschedulable, "the pod with nine GPUs is said to be unschedulable")
    assert phase(cluster, namespace, "nine") == "Pending"
    cluster.kubectl("delete", "pod", "--all", f"--namespace={namespace}")


def test_programs_end_when_the_test_run_is_killed(tmp_path: Path) -> None:
    """A run that is killed has no time for fixtures; etcd and its like must not stay."""
    script = (
        "import pathlib, sys, time\n"
        "from tests.tools.child_processes import ChildProcesses\n"
        "ChildProcesses(pathlib.Path(sys.argv[1])).start('one', ['sh', '-c', 'echo $$; exec sleep 600'])\n"
        "print('started', flush=True); time.sleep(600)\n"
    )
    log = tmp_path / "one.log"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "started\n"
        wait_until(lambda: log.read_text().strip(), "the program writes its number")
        number = int(log.read_text())
        os.kill(number, 0)  # it runs
        run.send_signal(signal.SIGKILL)
    wait_until(lambda: _ended(number), "the program ends with the run", seconds=5)


def _ended(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
