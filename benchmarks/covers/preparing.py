"""What a preparation costs those who wait for pictures, and how much of what they leave it uses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from benchmarks.bench import Bench
from benchmarks.covers.rig import Rig, Serving
from benchmarks.rows import Row, Target
from terroir._proto.inference.v1 import cover_pb2 as pb

_WHAT: Final = ("offered", "filled")


def rows(bench: Bench, rig: Rig) -> Iterator[Row]:
    """Pictures one after the other with pauses, in turns without and with a preparation that does not end meanwhile."""
    with rig.serving("preparing") as serving:
        turns, each = bench.count(8, 1), bench.count(10, 2)
        alone, beside = list[float](), list[float]()
        offered, filled, seconds = 0.0, 0.0, 0.0
        _drawn(serving, 3)
        for _ in range(turns):  # what else the machine does changes slowly, and meets both alike
            alone += _drawn(serving, each)
            name = _begin(serving)
            began, spare = time.monotonic(), _rows(serving)
            beside += _drawn(serving, each)
            now = _rows(serving)
            offered, filled = offered + now[0] - spare[0], filled + now[1] - spare[1]
            seconds += time.monotonic() - began
            _end(serving, name)
        told = f"Generate of one picture in 20 steps, {turns} times {each} with pauses"
        for share, what in ((0.5, "p50"), (0.95, "p95")):
            yield bench.row(
                f"{told}, {what} with a preparation running", "s", _share(beside, share),
                peer=_share(alone, share), peer_name="without one, in turns",
                target=Target(at_most=1.1, judged="ratio", cores=2) if what == "p95" else None,
            )  # fmt: skip
        yield bench.row(
            "spare rows that a preparation filled, of those offered", "share", filled / max(1.0, offered),
            target=Target(at_least=0.9),
        )  # fmt: skip
        yield bench.row("spare rows filled beside those pictures; a candidate takes 40", "1/min", filled / seconds * 60)
        yield from _alone(bench, serving)


def _alone(bench: Bench, serving: Serving) -> Iterator[Row]:
    """Nobody waits: what one engine draws in a day, for docs/capacity.md."""
    name = _begin(serving)
    time.sleep(2)
    before, began = _pictures(serving, name), time.monotonic()
    time.sleep(bench.count(40, 2))
    drawn, seconds = _pictures(serving, name) - before, time.monotonic() - began
    _end(serving, name)
    yield bench.row(
        "candidates of covers drawn while nobody waits, 64 × 64, 20 steps with guidance", "1/s", drawn / seconds
    )


def _begin(serving: Serving) -> str:
    contents = [pb.CoverContent(key=f"{time.monotonic_ns()}-{at}", prompt=f"a boat {at}") for at in range(500)]
    request = pb.PrepareCoversRequest(contents=contents, regions=["regions/CN"], variants=1)
    began = serving.covers.PrepareCovers(request, timeout=120)
    while not _pictures(serving, began.name):
        time.sleep(0.1)
    return str(began.name)


def _end(serving: Serving, name: str) -> None:
    """Cancel a preparation, and wait until the sets that were under way are drawn."""
    serving.covers.CancelPreparation(pb.CancelPreparationRequest(name=name), timeout=30)
    before = None
    while before != (before := _rows(serving)):
        time.sleep(0.5)


def _rows(serving: Serving) -> tuple[float, float]:
    """Spare rows offered and filled."""
    offered, filled = (serving.process.metric(f"terroir_inference_spare_rows_{what}_total") for what in _WHAT)
    return offered, filled


def _drawn(serving: Serving, count: int) -> list[float]:
    """Seconds of each picture."""
    seconds = []
    for number in range(count):
        time.sleep(0.05 + 0.013 * (number % 7))  # so that they meet the preparation's ticks at any moment
        began = time.perf_counter()
        serving.calls.generate(width=64, height=64, steps=20, seeds=[number])
        seconds.append(time.perf_counter() - began)
    return seconds


def _pictures(serving: Serving, name: str) -> int:
    return int(serving.covers.GetPreparation(pb.GetPreparationRequest(name=name), timeout=30).pictures)


def _share(seconds: list[float], share: float) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * share))]
