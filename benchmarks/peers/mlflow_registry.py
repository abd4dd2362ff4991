"""MLflow's model registry on its SQLite store, driven in an environment of its own.

MLflow is used as a library in the process that measures: no server and no network lie between, which is the kinder case
for it. Its packages are locked in requirements/peers.txt and installed beside the other caches, not into ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

NAME: Final = "MLflow 3 registry, SQLite, in process"
_LOCK: Final = Path(__file__).resolve().parents[2] / "requirements" / "peers.txt"
_QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet", "MLFLOW_LOGGING_LEVEL": "WARNING",
}  # fmt: skip
_DRIVER: Final = Path(__file__).with_name("mlflow_driver.py")


def seeded(number: int) -> str:
    """Name of a model that `seed` made."""
    return f"seeded-{number:06d}"


class MlflowRegistry:
    """A running MLflow that times its own operations; a context manager."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds its database and artifacts."""
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [str(_environment()), str(_DRIVER), str(self._folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **_QUIET},
        )  # fmt: skip
        self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.communicate()

    def seed(self, models: int) -> None:
        """Fill its tables with this many models of one version each, an alias on each."""
        self._call("seed", models=models)

    def publish(self, model: str, file: Path) -> float:
        """Seconds to log a file as an artifact and make it the model's next version."""
        return float(self._call("publish", model=model, file=str(file)))

    def set_alias(self, model: str, alias: str) -> float:
        """Seconds to point an alias at version 1."""
        return float(self._call("set_alias", model=model, alias=alias))

    def by_alias(self, model: str, alias: str) -> float:
        """Seconds to find the version behind an alias."""
        return float(self._call("by_alias", model=model, alias=alias))

    def page(self, size: int) -> float:
        """Seconds to list the first `size` models."""
        return float(self._call("page", size=size))

    def _call(self, operation: str, **arguments: Any) -> Any:
        if self._process is None:
            raise RuntimeError("enter the context first")
        into: IO[str] | None = self._process.stdin
        if into is None:
            raise RuntimeError("no pipe to MLflow")
        into.write(json.dumps({"operation": operation, **arguments}) + "\n")
        into.flush()
        return self._answer()

    def _answer(self) -> Any:
        if self._process is None or self._process.stdout is None:
            raise RuntimeError("enter the context first")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"MLflow ended with status {self._process.wait()}; its messages are above")
        return json.loads(line)


def _environment() -> Path:
    """Python of the peers' environment, made on first use and kept by the digest of its lock."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "terroir" / "peers"
    folder = cache / hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:16]
    python = folder / "bin" / "python"
    stamp = folder / "complete"
    if not stamp.exists():
        print("  installing MLflow beside our environment, once", flush=True)
        venv.create(folder, with_pip=False)
        uv = Path(sys.executable).with_name("uv")
        command = [str(uv), "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", str(_LOCK)]
        subprocess.run([*command, "--python", str(python)], check=True)
        subprocess.run([str(python), "-m", "compileall", "-q", str(folder)], check=False, stdout=subprocess.DEVNULL)
        stamp.touch()
    return python
