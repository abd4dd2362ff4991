"""What all tests share: programs that are not Python, and how their absence is told."""

from __future__ import annotations

import compileall
import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from scripts.tools import TOOLS, path_of
from terroir.common.collector import collector_paused
from tests.slow_files import SLOWEST_FIRST
from tests.tools.lacking import LACKING, skip_without
from tests.tools.minio_server import MinioServer
from tests.tools.toxiproxy_server import ToxiproxyServer

# How long an example takes says nothing: the machine has other work.
hypothesis.settings.register_profile("terroir", deadline=None)
hypothesis.settings.load_profile("terroir")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LACKING] = set()
    # Ray's workers yield to every other process unless told otherwise; beside other tests they would wait for minutes.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("TERROIR_INFERENCE_ENGINE_NICENESS", "0")
    # Threads that share a core with another test's wait for each other, and by default burn it meanwhile.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not hasattr(config, "workerinput"):
        # Where Python may not write bytecode (PYTHONDONTWRITEBYTECODE) each service, worker and command that a test
        # starts would compile Terroir for itself, for a quarter of what it takes to start.
        compileall.compile_dir(config.rootpath / "services", quiet=2)
    # Under `nohup make test &` everything below would ignore these, the services that tests end by them among them.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The modules of all tests, and with them torch and diffusers, stay to the end."""
    with collector_paused():
        return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slowest files first, whatever is before them in the alphabet; within a file nothing moves."""
    place = {config.rootpath / path: number for number, path in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of `-n` hands what it lacked to the process that prints."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["lacking"] = sorted(session.config.stash[LACKING])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker lacked; one that crashed has nothing to say."""
    node.config.stash[LACKING] |= set(getattr(node, "workeroutput", {}).get("lacking", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One loud line for each program that could not be had."""
    for what in sorted(config.stash[LACKING]):
        terminalreporter.write_line(f"NOT TESTED, for want of {what}", red=True)


def _find(config: pytest.Config, name: str) -> str:
    built = next((path_of(known) for known in TOOLS if known.name == name), None)
    if built is not None and built.exists():
        return str(built)
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if path := shutil.which(name, path=folders):
        return path
    return skip_without(config, name)


@pytest.fixture
def tool(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Path of a program; without it the test is skipped loudly, or fails if TERROIR_REQUIRE_TOOLS names it."""
    return lambda name: _find(request.config, name)


@pytest.fixture(scope="session")
def minio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """A running MinIO for all tests that leave it running; each takes a bucket of its own."""
    server = MinioServer(_find(request.config, "minio"), tmp_path_factory.mktemp("minio") / "data")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_minio(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MinioServer]:
    """A MinIO that a test may stop, kill and start again."""
    server = MinioServer(_find(request.config, "minio"), tmp_path / "minio" / "data")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def toxiproxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToxiproxyServer]:
    """A running Toxiproxy; each test takes proxies of its own."""
    server = ToxiproxyServer(_find(request.config, "toxiproxy"), tmp_path_factory.mktemp("toxiproxy"))
    server.start()
    yield server
    server.stop()
