"""A feed for ten minutes: contents and regions by Zipf's law, and a style that changes every minute."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

import grpc

from benchmarks.bench import Bench
from benchmarks.covers.rig import COVERS, Rig, Serving
from benchmarks.rows import Row, Target
from terroir._proto.inference.v1 import cover_pb2 as pb

CONTENTS: Final = 10_000
REGIONS: Final = 300
STYLES: Final = 30
_RATE: Final = 25
"""Calls a second, of COVERS each."""
_CALLERS: Final = 4
_SHELVED: Final = 300
"""Most popular contents that are there in every style at the start; the base's own look is there of all."""
_EXPONENT: Final = 1.0
_ALIAS_SECONDS: Final = 60.0


@dataclass
class Report:
    """What callers saw."""

    calls: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    rungs: Counter[int] = field(default_factory=Counter)
    stale: int = 0
    seconds: list[float] = field(default_factory=list)


def rows(bench: Bench, rig: Rig) -> Iterator[Row]:
    """The replay, with pictures that are missed drawn in what is left of two cores."""
    contents = [f"content-{number}" for number in range(bench.count(CONTENTS, 60))]
    regions, styles = bench.count(REGIONS, 6), bench.count(STYLES, 3)
    for number in range(1, styles + 1):
        rig.publish(number)
        rig.publish(number)
        rig.alias(number, 1)
    for number in range(regions):
        rig.region(f"R-{number}", 1 + number % styles)
    looks = [rig.look(number, 1) for number in range(1, styles + 1)]
    base = type(looks[0])(looks[0].base_digest)
    bench.say("covers are shelved")
    rig.shelve(contents, [base])
    rig.shelve(contents[: bench.count(_SHELVED, 20)], looks)
    seconds = bench.count(600, 5)
    with rig.serving("replay") as serving:
        report = _replay(rig, serving, contents, regions, styles, seconds)
        drawn = serving.process.metric("terroir_inference_cover_fills_total", outcome="drawn")
    what = (
        f"{len(contents)} contents × {regions} regions by Zipf's law (exponent {_EXPONENT:g}), {styles} styles, "
        f"one of them changes a minute, {_RATE} calls/s of {COVERS}, {seconds} s"
    )
    yield bench.row(f"errors, {what}", "calls", float(report.errors.total()), target=Target(at_most=0))
    yield bench.row("calls answered", "1/s", report.calls / seconds)
    covers = max(1, report.rungs.total())
    for name, rung in (
        ("the region's own style", pb.RUNG_REGION), ("a region that it lies in", pb.RUNG_PARENT),
        ("the base's own look", pb.RUNG_BASE), ("the caller's default", pb.RUNG_DEFAULT),
    ):  # fmt: skip
        yield bench.row(f"covers answered by {name}", "share", report.rungs[rung] / covers)
    yield bench.row("covers that were stale", "share", report.stale / covers)
    ordered = sorted(report.seconds)
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        yield bench.row(f"a call of the replay, {name}", "ms", ordered[int(len(ordered) * share)] * 1000)
    yield bench.row("sets drawn for what was missed", "1/min", drawn / seconds * 60)


def _replay(rig: Rig, serving: Serving, contents: list[str], regions: int, styles: int, seconds: float) -> Report:
    report, lock, ended = Report(), threading.Lock(), threading.Event()

    def ask(seed: int) -> None:
        chance, at = random.Random(seed), time.monotonic()
        content_weights, region_weights = _zipf(len(contents)), _zipf(regions)
        while not ended.is_set():
            at += _CALLERS / _RATE
            time.sleep(max(0.0, at - time.monotonic()))
            keys = list(dict.fromkeys(chance.choices(contents, cum_weights=content_weights, k=COVERS)))
            region = f"regions/R-{chance.choices(range(regions), cum_weights=region_weights)[0]}"
            began = time.perf_counter()
            try:
                covers = serving.get(keys, region, sticky_key=f"user-{chance.randrange(10_000)}")
            except grpc.RpcError as error:
                with lock:
                    report.errors[str(error.code())] += 1
                continue
            with lock:
                report.calls += 1
                report.seconds.append(time.perf_counter() - began)
                report.rungs.update(cover.rung for cover in covers)
                report.stale += sum(cover.stale for cover in covers)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(_CALLERS)]
    for thread in threads:
        thread.start()
    until, turn = time.monotonic() + seconds, 0
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(_ALIAS_SECONDS, seconds / 4, left))
        turn += 1
        rig.alias(1 + turn % styles, 2 if turn // styles % 2 == 0 else 1)
    ended.set()
    for thread in threads:
        thread.join()
    return report


def _zipf(count: int) -> list[float]:
    return list(accumulate(1 / (number + 1) ** _EXPONENT for number in range(count)))
