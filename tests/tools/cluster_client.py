"""kubectl and helm against one cluster, and the few questions that tests ask of it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Written by the cluster itself at any time, whoever is installed.
_NOT_OF_A_RELEASE: Final = {"events", "events.events.k8s.io", "leases.coordination.k8s.io", "componentstatuses"}
_COMMAND_SECONDS: Final = 180.0
Manifest = dict[str, Any]


@dataclass(frozen=True)
class ClusterClient:
    """Runs the two programs with a home and a kubeconfig of their own, so that nobody's cluster is touched."""

    kubectl_program: str
    helm_program: str
    kubeconfig: Path
    home: Path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl says; fails with its error."""
        done = self.try_kubectl(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def try_kubectl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """The same where a failure is what the test asks for."""
        return self._run(self.kubectl_program, arguments, stdin)

    def start_kubectl(self, *arguments: str) -> subprocess.Popen[str]:
        """A kubectl that goes on, such as a watch; the caller ends it."""
        return subprocess.Popen(
            [self.kubectl_program, *arguments], env=self._environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def helm(self, *arguments: str) -> str:
        """What Helm says; fails with its error."""
        done = self.try_helm(*arguments)
        assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def try_helm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same where a failure is what the test asks for."""
        return self._run(self.helm_program, arguments, None)

    def create(self, manifests: Iterable[Manifest], *, namespace: str = "default", dry_run: bool = False) -> str:
        """Create them; a field that the server does not know is an error."""
        return self.kubectl(*self._creation(namespace, dry_run), stdin=_documents(manifests))

    def try_create(
        self, manifests: Iterable[Manifest], *, namespace: str = "default", dry_run: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """The same where a refusal is what the test asks for."""
        return self.try_kubectl(*self._creation(namespace, dry_run), stdin=_documents(manifests))

    @contextmanager
    def created(self, manifests: Iterable[Manifest], *, namespace: str = "default") -> Iterator[None]:
        """They are there meanwhile, and gone at the end."""
        wanted = list(manifests)
        self.create(wanted, namespace=namespace)
        try:
            yield
        finally:
            self.kubectl("delete", "--filename=-", f"--namespace={namespace}", "--wait", stdin=_documents(wanted))

    def get(self, kind: str, name: str, namespace: str) -> Manifest:
        """One object."""
        told: Manifest = json.loads(self.kubectl("get", kind, name, f"--namespace={namespace}", "--output=json"))
        return told

    def items(self, kind: str, namespace: str, selector: str = "") -> list[Manifest]:
        """All objects of a kind in a namespace."""
        answer = self.kubectl("get", kind, f"--namespace={namespace}", f"--selector={selector}", "--output=json")
        found: list[Manifest] = json.loads(answer)["items"]
        return found

    def everything(self) -> set[str]:
        """`Kind namespace/name` of every object of every kind that the server knows."""
        kinds = self.kubectl("api-resources", "--verbs=list", "--output=name", "--cached=true").split()
        wanted = ",".join(kind for kind in kinds if kind not in _NOT_OF_A_RELEASE)
        row = '{.kind} {.metadata.namespace}/{.metadata.name}{"\\n"}'
        told = self.kubectl("get", wanted, "--all-namespaces", f"--output=jsonpath={{range .items[*]}}{row}{{end}}")
        return set(told.splitlines())

    def _creation(self, namespace: str, dry_run: bool) -> list[str]:
        dry = ["--dry-run=server"] if dry_run else []
        return ["create", "--filename=-", f"--namespace={namespace}", "--validate=strict", "--output=name", *dry]

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HOME": str(self.home),
            "KUBECONFIG": str(self.kubeconfig),
            **{f"HELM_{name}_HOME": str(self.home / "helm" / name.lower()) for name in ("CACHE", "CONFIG", "DATA")},
        }

    def _run(self, program: str, arguments: tuple[str, ...], stdin: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments], env=self._environment(), input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True, text=True, check=False, timeout=_COMMAND_SECONDS,
        )  # fmt: skip


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Ask again until it holds; fails with `what`."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)


def _documents(manifests: Iterable[Manifest]) -> str:
    # Not one List: for that kubectl validates itself, by a published schema, instead of asking the server to be strict.
    return "\n---\n".join(json.dumps(manifest) for manifest in manifests)
