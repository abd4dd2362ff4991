"""A real Prometheus on a free port of loopback that scrapes what a test names."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.tools.child_processes import ChildProcesses
from tests.tools.minio_server import free_port

_START_SECONDS: Final = 30.0
_SCRAPE_INTERVAL: Final = "250ms"


@dataclass(frozen=True)
class Sample:
    """One series of an answer, and its value now."""

    labels: dict[str, str]
    value: float


class PrometheusServer:
    """One Prometheus; its data lie in a folder of its own."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._port = free_port()
        self._processes = ChildProcesses(folder)

    def start(self, jobs: dict[str, list[str]], rule_files: tuple[Path, ...] = ()) -> None:
        """Scrape the `host:port`s of each job at /metrics and evaluate the rules; returns once it answers."""
        configuration = {
            "global": {"scrape_interval": _SCRAPE_INTERVAL, "evaluation_interval": _SCRAPE_INTERVAL},
            "rule_files": [str(path.resolve()) for path in rule_files],
            "scrape_configs": [
                {"job_name": name, "static_configs": [{"targets": addresses}]} for name, addresses in jobs.items()
            ],
        }
        path = self._folder / "prometheus.json"
        path.write_text(json.dumps(configuration))  # JSON is YAML
        self._processes.start("prometheus", [
            self._program, f"--config.file={path}", f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}", "--log.level=warn",
        ])  # fmt: skip
        until = time.monotonic() + _START_SECONDS
        while not self._ready():
            self._processes.assert_running()
            assert time.monotonic() < until, f"Prometheus did not start in time:\n{self._processes.told('prometheus')}"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        self._processes.end()

    def query(self, expression: str) -> list[Sample]:
        """What a PromQL expression is now; fails with Prometheus' words if it is none."""
        answer = self._ask("query", query=expression)
        return [Sample(one["metric"], float(one["value"][1])) for one in answer["result"]]

    def targets(self) -> dict[str, str]:
        """Address → "" where the last scrape was read, else its error or "not yet"."""
        active = self._ask("targets", state="active")["activeTargets"]
        return {
            one["discoveredLabels"]["__address__"]: "" if one["health"] == "up" else one["lastError"] or "not yet"
            for one in active
        }

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts that are pending or firing."""
        found: list[dict[str, Any]] = self._ask("alerts")["alerts"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their health and last error."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def _ask(self, path: str, **arguments: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                data: dict[str, Any] = json.loads(answer.read())["data"]
                return data
        except urllib.error.HTTPError as error:
            raise AssertionError(f"Prometheus refuses {path} {arguments}: {error.read().decode()}") from None

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
