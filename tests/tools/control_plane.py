"""A real Kubernetes control plane on loopback: etcd, API server, controller manager, scheduler; kwok plays the nodes.

Everything but containers is real: admission (Pod Security, quotas), RBAC, scheduling by GPU count, disruption budgets,
deployments, claims. Pods are placed on nodes of ours and become ready there without anything running.
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from scripts.tools import CLUSTER_TOOLS, path_of
from tests.tools.child_processes import ChildProcesses
from tests.tools.cluster_client import ClusterClient
from tests.tools.minio_server import free_port
from tests.tools.simulated_nodes import HOOK_STAGE, NODES, STORAGE_CLASS

_START_SECONDS: Final = 90.0
# Kinds that the chart makes, by files of their operators' modules; all of them would cost a second each.
_DEFINITIONS: Final = (
    "prometheus-operator-crds/monitoring.coreos.com_servicemonitors.yaml",
    "prometheus-operator-crds/monitoring.coreos.com_podmonitors.yaml",
    "prometheus-operator-crds/monitoring.coreos.com_prometheusrules.yaml",
    "keda-crds/keda.sh_scaledobjects.yaml",
    "keda-crds/keda.sh_triggerauthentications.yaml",
    "cert-manager-crds/cert-manager.io_certificates.yaml",
    "cert-manager-crds/cert-manager.io_issuers.yaml",
)


def missing_tools() -> list[str]:
    """What `make tools-cluster` would still have to build."""
    return [tool.name for tool in CLUSTER_TOOLS if not path_of(tool).exists()]


class ControlPlane:
    """One control plane; `client` speaks to it as its administrator."""

    def __init__(self, folder: Path, helm: str) -> None:
        self._folder = folder
        self._paths = {tool.name: path_of(tool) for tool in CLUSTER_TOOLS}
        self._processes = ChildProcesses(folder)
        self._port = free_port()
        self._token = secrets.token_urlsafe(24)
        self._kubeconfig = folder / "kubeconfig"
        self.client = ClusterClient(
            kubectl_program=str(self._paths["kubectl"]), helm_program=helm, kubeconfig=self._kubeconfig, home=folder
        )

    def start(self, definitions: tuple[Path, ...] = ()) -> None:
        """Start all and wait until nodes are ready and custom kinds, those of `definitions` among them, are served."""
        self._write_keys()
        until = time.monotonic() + _START_SECONDS
        self._start_server()
        self._wait_for("the API server's readiness", self._is_ready, until)
        self._write_kubeconfig()
        self._start_controllers()
        files = [self._paths[name.split("/")[0]] / name.split("/")[1] for name in _DEFINITIONS]
        # `create`, not `apply`: its note of what was applied would exceed the limit on annotations.
        self.client.kubectl("create", *(f"--filename={path}" for path in (*files, *definitions)))
        self.client.create([STORAGE_CLASS, *NODES])
        self.client.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        self.client.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
        self._processes.assert_running()

    def stop(self) -> None:
        """End all of it; what it kept is in its folder."""
        self._processes.end()

    def told(self, name: str) -> str:
        """The end of a program's log."""
        return self._processes.told(name)

    def _start_server(self) -> None:
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._processes.start("etcd", [
            str(self._paths["etcd"]),
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync", "--log-level=warn",
        ])  # fmt: skip
        self._processes.start("kube-apiserver", [
            str(self._paths["kube-apiserver"]),
            f"--etcd-servers={client}",
            "--bind-address=127.0.0.1", f"--secure-port={self._port}", f"--cert-dir={self._folder / 'certificates'}",
            f"--token-auth-file={self._folder / 'tokens.csv'}", "--anonymous-auth=false",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self._folder / 'service-account.key'}",
            f"--service-account-key-file={self._folder / 'service-account.pub'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--endpoint-reconciler-type=none",
        ])  # fmt: skip

    def _start_controllers(self) -> None:
        connection = [f"--kubeconfig={self._kubeconfig}", "--leader-elect=false", "--secure-port=0"]
        quick = ["--kube-api-qps=200", "--kube-api-burst=400"]
        self._processes.start("kube-controller-manager", [
            str(self._paths["kube-controller-manager"]), *connection, *quick,
            "--horizontal-pod-autoscaler-sync-period=2s",
            f"--service-account-private-key-file={self._folder / 'service-account.key'}",
            f"--root-ca-file={self._authority}",
        ])  # fmt: skip
        self._processes.start("kube-scheduler", [str(self._paths["kube-scheduler"]), *connection, *quick])
        hook_stage = self._folder / "hook-stage.json"
        hook_stage.write_text(json.dumps(HOOK_STAGE))
        stages = [*sorted(self._paths["kwok-stages"].glob("*.yaml")), hook_stage]
        self._processes.start("kwok", [
            str(self._paths["kwok"]), f"--kubeconfig={self._kubeconfig}", *(f"--config={path}" for path in stages),
            "--manage-all-nodes=true", "--node-lease-duration-seconds=40",
        ], {**os.environ, "HOME": str(self._folder)})  # fmt: skip

    @property
    def _authority(self) -> Path:
        return self._folder / "certificates" / "apiserver.crt"  # written by the server: its certificate and the CA's

    def _is_ready(self) -> bool:
        if not self._authority.exists():
            return False
        request = urllib.request.Request(f"https://127.0.0.1:{self._port}/readyz")
        request.add_header("Authorization", f"Bearer {self._token}")
        try:
            trust = ssl.create_default_context(cafile=str(self._authority))
            with urllib.request.urlopen(request, timeout=2, context=trust) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _wait_for(self, what: str, condition: Any, until: float) -> None:
        while not condition():
            self._processes.assert_running()
            assert time.monotonic() < until, f"{what} did not come in time:\n{self.told('kube-apiserver')}"
            time.sleep(0.05)

    def _write_keys(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for name, content in (
            ("service-account.key", private),
            ("service-account.pub", public),
            ("tokens.csv", f'{self._token},administrator,administrator,"system:masters"\n'.encode()),
        ):
            path = self._folder / name
            path.touch(0o600)
            path.write_bytes(content)

    def _write_kubeconfig(self) -> None:
        server = {"server": f"https://127.0.0.1:{self._port}", "certificate-authority": str(self._authority)}
        self._kubeconfig.touch(0o600)
        self._kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "administrator", "user": {"token": self._token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "administrator"}}],
        }))  # fmt: skip
