"""The one way by which tests use Helm: values in, documents out."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "charts" / "terroir"
OLDEST: Final = "1.32"
NEWEST: Final = "1.37"
RELEASE: Final = "style"
NAMESPACE: Final = "demo"
Document = dict[str, Any]
Values = Mapping[str, Any]
_SECONDS: Final = 60


class Refused(Exception):
    """Helm did not render; the text is what a person reads."""


@dataclass(frozen=True)
class Chart:
    """The chart and a Helm program. What was rendered once is kept: tests ask many questions of few value sets."""

    helm: str
    _kept: dict[tuple[str, str], Future[tuple[Document, ...]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, thread_name_prefix="helm"))

    def render(self, values: Values | None = None, *, kube_version: str = NEWEST) -> tuple[Document, ...]:
        """Every document, those of tests too; raises Refused."""
        return self.begin(values or {}, kube_version).result(_SECONDS)

    def begin(self, values: Values, kube_version: str = NEWEST) -> Future[tuple[Document, ...]]:
        """Have it rendered by a thread, unless it was before."""
        key = (json.dumps(values, sort_keys=True), kube_version)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._threads.submit(self._render, values, kube_version)
            return self._kept[key]

    def end(self) -> None:
        """Forget what nobody waits for."""
        self._threads.shutdown(cancel_futures=True)

    def refusal(self, values: Values, *, kube_version: str = NEWEST) -> str:
        """What Helm says where it must not render."""
        try:
            self.render(values, kube_version=kube_version)
        except Refused as refused:
            return str(refused)
        raise AssertionError(f"rendered, and should not have: {json.dumps(values)}")

    def notes(self, values: Values | None = None) -> str:
        """What `helm install` tells afterwards."""
        done = self._run("install", values or {}, "--dry-run=client")
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("\nNOTES:\n")[2]

    def lint(self, values: Values) -> subprocess.CompletedProcess[str]:
        """`helm lint --strict`."""
        with _file(values) as path:
            return self._call("lint", "--strict", str(CHART), f"--values={path}")

    def _render(self, values: Values, kube_version: str) -> tuple[Document, ...]:
        done = self._run("template", values, f"--kube-version={kube_version}.0")
        if done.returncode:
            raise Refused(done.stderr)
        return tuple(one for one in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if one)

    def _run(self, command: str, values: Values, *options: str) -> subprocess.CompletedProcess[str]:
        with _file(values) as path:
            return self._call(
                command, RELEASE, str(CHART), f"--namespace={NAMESPACE}", f"--values={path}", *options
            )  # fmt: skip

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Nobody's cluster is asked, whatever kubeconfig there is.
        environment = {**os.environ, "KUBECONFIG": os.devnull}
        return subprocess.run(
            [self.helm, *arguments], env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )


class _file:  # noqa: N801 (used as a function)
    def __init__(self, values: Values) -> None:
        self._values = values

    def __enter__(self) -> str:
        descriptor, self._path = tempfile.mkstemp(suffix=".json")
        with os.fdopen(descriptor, "w") as file:
            json.dump(self._values, file)
        return self._path

    def __exit__(self, *_: object) -> None:
        Path(self._path).unlink()


def defaults() -> dict[str, Any]:
    """values.yaml."""
    stated: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return stated


def schema() -> dict[str, Any]:
    """values.schema.json."""
    stated: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return stated


def nested(path: str, value: Any) -> dict[str, Any]:
    """`a.b` and 1 as {"a": {"b": 1}}."""
    for key in reversed(path.split(".")):
        value = {key: value}
    made: dict[str, Any] = value
    return made


def merged(*parts: Values) -> dict[str, Any]:
    """Later parts over earlier ones, as Helm merges values."""
    made: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            under = made.get(key)
            made[key] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return made
