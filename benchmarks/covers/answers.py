"""How soon GetCovers answers: from memory at the rate of a feed while pictures are drawn, and from the bucket."""

from __future__ import annotations

import json
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import Bench
from benchmarks.covers.rig import COVERS, Rig, Serving
from benchmarks.rows import Row, Target
from scripts.tools import TOOLS, path_of
from terroir._proto.inference.v1 import cover_pb2 as pb
from tests.command_line import ROOT

_RATE: Final = 500
_CONNECTIONS: Final = 4
_CONTENTS: Final = 2000


def rows(bench: Bench, rig: Rig) -> Iterator[Row]:
    """Warm and cold, references alone and with files."""
    contents = [f"post-{number}" for number in range(bench.count(_CONTENTS, 100))]
    rig.publish(0)
    rig.alias(0, 1)
    rig.region("CN", 0)
    rig.shelve(contents, [rig.look(0, 1)])
    with rig.serving("cold") as serving:
        yield from _cold(bench, serving, contents)
    with rig.serving("warm") as serving:
        yield from _warm(bench, serving, contents)
        yield from _change(bench, rig, serving, contents[:COVERS])


def _cold(bench: Bench, serving: Serving, contents: list[str]) -> Iterator[Row]:
    """Each call names contents that this server never saw; the region is known."""
    serving.get(["nobody's"], "regions/CN")
    half = len(contents) // 2
    for part, with_data, what in ((contents[:half], False, "references"), (contents[half:], True, "files of 6 KB")):
        seconds = []
        for at in range(0, len(part) - COVERS + 1, COVERS):
            began = time.perf_counter()
            covers = serving.get(part[at : at + COVERS], "regions/CN", with_data=with_data)
            seconds.append(time.perf_counter() - began)
            assert all(cover.rung == pb.RUNG_REGION and bool(cover.data) == with_data for cover in covers)
        name = f"GetCovers of {COVERS}, cold from MinIO, {what}, {len(seconds)} calls"
        yield bench.row(f"{name}, p50", "ms", statistics.median(seconds) * 1000)
        target = None if with_data else Target(at_most=80, cores=2)
        yield bench.row(f"{name}, p99", "ms", _p99(seconds) * 1000, target=target)


def _warm(bench: Bench, serving: Serving, contents: list[str]) -> Iterator[Row]:
    ghz = path_of(next(tool for tool in TOOLS if tool.name == "ghz"))
    seconds = bench.count(30, 3)
    calls = [contents[at : at + COVERS] for at in range(0, len(contents) - COVERS + 1, COVERS)]
    for keys in calls:
        serving.get(keys, "regions/CN")
        serving.get(keys, "regions/CN", with_data=True)
    for with_data, drawing in ((False, True), (False, False), (True, True)):
        what = "files of 6 KB" if with_data else "references"
        beside = "while pictures are drawn without a pause" if drawing else "while nothing is drawn"
        name = f"GetCovers of {COVERS}, warm, {what}, {_RATE} calls/s by ghz, {beside}"
        if not ghz.exists():
            yield bench.row(f"{name}, p99", "ms", None, reason="ghz is not built here (make tools)")
            continue
        with _drawn(serving if drawing else None) as pictures:
            seen = _ghz(ghz, bench.work, serving, calls, seconds, with_data=with_data)
        found = {each["percentage"]: each["latency"] / 1e6 for each in seen["latencyDistribution"]}
        judged = drawing and not with_data
        bench.say(f"{name}: {seen['statusCodeDistribution']}, {seen['rps']:.0f}/s, {len(pictures)} pictures meanwhile")
        yield bench.row(f"{name}, p50", "ms", found[50], target=Target(at_most=5, cores=2) if judged else None)
        yield bench.row(f"{name}, p99", "ms", found[99], target=Target(at_most=20, cores=2) if judged else None)
        yield bench.row(f"{name}, answers", "1/s", seen["rps"])
        failed = sum(count for code, count in seen["statusCodeDistribution"].items() if code != "OK")
        yield bench.row(f"{name}, errors", "calls", float(failed), target=Target(at_most=0))


def _change(bench: Bench, rig: Rig, serving: Serving, contents: list[str]) -> Iterator[Row]:
    """From the answer to SetAlias until the covers in the old style say that they are stale, and until one is new."""
    seconds, refilled = [], []
    for number in range(bench.count(10, 1)):
        rig.publish(0)
        rig.alias(0, 2 + number)
        began = time.perf_counter()
        while not all(cover.stale for cover in serving.get(contents, "regions/CN")):
            time.sleep(0.005)
        seconds.append(time.perf_counter() - began)
        while all(cover.stale for cover in serving.get(contents, "regions/CN")):
            time.sleep(0.02)
        refilled.append(time.perf_counter() - began)
    name = f"an alias moved to {COVERS} covers that say they are stale, {len(seconds)} moves, longest"
    yield bench.row(name, "s", max(seconds), target=Target(at_most=2))
    yield bench.row("an alias moved to the first cover in the new style, median", "s", statistics.median(refilled))


@contextmanager
def _drawn(serving: Serving | None) -> Iterator[list[float]]:
    """Draw one picture after the other meanwhile; how many seconds each took."""
    seconds: list[float] = []
    ended = threading.Event()

    def draw() -> None:
        while serving is not None and not ended.is_set():
            began = time.perf_counter()
            serving.calls.generate(width=64, height=64, steps=20, seeds=[len(seconds)])
            seconds.append(time.perf_counter() - began)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield seconds
    finally:
        ended.set()
        thread.join()


def _ghz(
    program: Path, folder: Path, serving: Serving, calls: list[list[str]], seconds: float, *, with_data: bool
) -> Any:
    data = folder / "covers.json"
    requests = [{"queries": [{"contents": keys, "region": "regions/CN"}], "with_data": with_data} for keys in calls]
    data.write_text(json.dumps(requests))
    command = [
        str(program), "--insecure", "--protoset", str(ROOT / "proto" / "baseline.binpb"), "--data-file", str(data),
        "--call", "terroir.inference.v1.CoverService.GetCovers", "--rps", str(_RATE), "--concurrency", "32",
        "--connections", str(_CONNECTIONS), "--duration", f"{seconds}s", "--duration-stop", "wait",
        "--timeout", "5s", "--format", "json", serving.process.target,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=True)
    return json.loads(done.stdout)


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * 0.99))]
