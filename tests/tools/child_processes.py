"""Programs that end with the test run, however that ends."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_END_SECONDS = 10.0
_TOLD_BYTES = 3000


class ChildProcesses:
    """Named programs with a log each; the kernel kills them when the thread that started them dies, killed or not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        setpriv = shutil.which("setpriv")
        assert setpriv is not None, "setpriv (Debian's util-linux) is missing: programs would outlive a killed test run"
        self._setpriv = setpriv

    def start(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        """Start it; what it says goes to `<name>.log`."""
        with self._log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [self._setpriv, "--pdeathsig", "KILL", *command],
                cwd=self._folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def assert_running(self) -> None:
        """Fail with the end of its log if one has ended."""
        for name, process in self._running.items():
            assert process.poll() is None, f"{name} ended with {process.returncode}:\n{self.told(name)}"

    def told(self, name: str) -> str:
        """The end of its log."""
        return self._log(name).read_bytes()[-_TOLD_BYTES:].decode(errors="replace")

    def end(self) -> None:
        """End all, the last one first."""
        for process in reversed(self._running.values()):
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"
