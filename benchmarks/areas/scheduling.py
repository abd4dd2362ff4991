"""The training queue: a simulated week beside first come, first served, and what deciding and ticking cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.minio_place import NOT_BUILT
from benchmarks.rows import Row, Target
from benchmarks.scheduling import figures, plot, table, ticks
from benchmarks.scheduling.week import Course, Record, Week, first_come_first_served
from benchmarks.scheduling.workload import DAY, HOUR, TEAMS, World, flooded, world
from terroir.training.config.scheduling_keys import Priority
from terroir.training.scheduling.model import Capacity, Demand, Node, RunningJob, Situation, WaitingJob
from terroir.training.scheduling.policy import decide

_DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
PICTURE: Final = _DOCS / "images" / "scheduling-week.svg"
PAGE: Final = _DOCS / "scheduling.md"
_PEER: Final = "first come, first served"


def rows(bench: Bench) -> Iterator[Row]:
    """A week with faults, a week with a flood, a decision, a tick."""
    week = world() if not bench.quick else world(styles=120, nodes=2, days=3.0)
    about = f"simulated, {len(week.styles)} styles, {8 * len(week.nodes)} GPUs, {week.seconds / DAY:g} days"
    ours, peer = Week(week, decide).run(), Week(week, first_come_first_served).run()
    bench.say(f"{about}: simulated")
    simulated = [
        *_use(bench, about, ours, peer), *_waits(bench, about, ours, peer),
        *_flood(bench, flooded(week, 60 if bench.quick else 300)),
    ]  # fmt: skip
    yield from simulated
    if not bench.quick:
        plot.draw(PICTURE, f"A week of {len(week.styles)} styles on {8 * len(week.nodes)} GPUs", _named(ours, peer))
        table.write(PAGE, simulated)
    yield from _decisions(bench, ours)
    yield from _ticks(bench)


def _named(ours: Record, peer: Record) -> dict[str, Record]:
    return {"terroir": ours, _PEER: peer}


def _use(bench: Bench, about: str, ours: Record, peer: Record) -> Iterator[Row]:
    wanted = sum(style.seconds * style.demand.total_gpus for style in ours.world.styles)
    there = sum(node.gpus for node in ours.world.nodes) * ours.world.seconds
    yield bench.row(f"{about}: GPU time that the styles need, of all there is", "share", wanted / there)
    for figure, value in (
        ("GPUs in use", figures.utilisation),
        ("GPUs in use while jobs wait", figures.busy_utilisation),
    ):
        yield bench.row(
            f"{about}: {figure}", "share", value(ours), peer=value(peer), peer_name=_PEER,
            target=Target(at_least=1.0, judged="ratio"),
        )  # fmt: skip
    yield _beside(bench, f"{about}: fairness between teams while all wait (Jain)", "", figures.fairness, ours, peer)
    yield _beside(bench, f"{about}: time to the result over running alone, median", "", _median_slowdown, ours, peer)
    yield _beside(bench, f"{about}: time to the result over running alone, p95", "", _slowdown, ours, peer)
    counts: tuple[tuple[str, str, Callable[[Course], float]], ...] = (
        ("attempts lost by faults", "attempts", lambda course: course.losses),
        ("training done twice after faults", "h", lambda course: course.lost_seconds / HOUR),
        ("times that a job made room", "", lambda course: course.preemptions),
    )
    for figure, unit, count in counts:
        mine, theirs = (float(sum(map(count, record.courses.values()))) for record in (ours, peer))
        yield bench.row(f"{about}: {figure}", unit, mine, peer=theirs, peer_name=_PEER)


def _waits(bench: Bench, about: str, ours: Record, peer: Record) -> Iterator[Row]:
    for priority in sorted(Priority, key=["high", "normal", "low"].index):
        for team in TEAMS:
            mine, theirs = (
                figures.waits(record, lambda c: (c.style.priority, c.style.team) == (priority, team))  # noqa: B023
                for record in (ours, peer)
            )
            if mine.count:
                name = f"{about}: wait of {mine.count} {priority} jobs of {team}"
                yield bench.row(f"{name}, median", "min", mine.median / 60, peer=theirs.median / 60, peer_name=_PEER)
                yield bench.row(f"{name}, p95", "min", mine.p95 / 60, peer=theirs.p95 / 60, peer_name=_PEER)


def _flood(bench: Bench, week: World) -> Iterator[Row]:
    """The others' jobs of the day that begins with it."""
    at = next(style.created for style in week.styles if style.id.startswith("flood"))
    ours, peer = Week(week, decide).run(), Week(week, first_come_first_served).run()
    count = sum(style.id.startswith("flood") for style in week.styles)
    bench.say(f"the same week with a flood of {count} jobs: simulated")
    mine, theirs = (
        figures.waits(
            record,
            lambda c: c.style.team != "brands" and c.style.priority != Priority.LOW and 0 <= c.style.created - at < DAY,
        )
        for record in (ours, peer)
    )
    name = f"simulated, one team hands in {count} jobs at once: wait of other teams' normal and high jobs that day"
    yield bench.row(f"{name}, median", "min", mine.median / 60, peer=theirs.median / 60, peer_name=_PEER)
    yield bench.row(f"{name}, p95", "min", mine.p95 / 60, peer=theirs.p95 / 60, peer_name=_PEER)


def _decisions(bench: Bench, week: Record) -> Iterator[Row]:
    found = week.decision_seconds
    yield bench.row("one decision of that week, median", "ms", 1e3 * figures.quantile(found, 0.5))
    yield bench.row("one decision of that week, p99", "ms", 1e3 * figures.quantile(found, 0.99))
    crowded = _timed(crowd(), bench.count(20, 3))
    yield bench.row(
        "one decision over 1,000 waiting jobs and 64 full GPUs, median", "ms", 1e3 * figures.quantile(crowded, 0.5),
        target=Target(at_most=100),
    )  # fmt: skip


def _timed(situation: Situation, times: int) -> list[float]:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        decide(situation)
        found.append(time.perf_counter() - began)
    return found


def crowd(jobs: int = 1000) -> Situation:
    """A full cluster and a thousand jobs of every class, team and size that want it."""
    nodes = tuple(Node(f"node-{number}", 64.0, 8) for number in range(8))
    classes, teams, sizes = list(Priority), list(TEAMS), (0.5, 1.0, 2.0, 4.0, 8.0)
    waiting = [
        WaitingJob(
            f"w{number:04d}", teams[number % 3], classes[number % 7 % 3], Demand(1, 4.0, sizes[number % 5]),
            -60.0 * (number % 300), -60.0 * (number % 300),
        )
        for number in range(jobs)
    ]  # fmt: skip
    running = [
        RunningJob(
            f"r{number:02d}", teams[number % 3], classes[number % 2], Demand(1, 4.0, 1.0), -3600.0,
            nodes=(f"node-{number // 8}",),
        )
        for number in range(64)
    ]  # fmt: skip
    return Situation(0.0, waiting, running, Capacity(10_000, nodes))


def _ticks(bench: Bench) -> Iterator[Row]:
    jobs = bench.count(1000, 40)
    with ticks.stores(bench.work) as places:
        for place, store in places.items():
            name = f"{jobs} jobs queued, {place}"
            if store is None:
                yield bench.row(f"{name}: one tick, median", "ms", None, reason=NOT_BUILT)
                continue
            found = ticks.measure(store, jobs, bench.count(50, 5))
            bench.say(f"{name}: measured")
            yield bench.row(
                f"{name}: one tick in which nothing changes, median", "ms", 1e3 * figures.quantile(found.quiet, 0.5),
                target=Target(at_most=250),
            )  # fmt: skip
            yield bench.row(
                f"{name}: one tick in which nothing changes, p95", "ms", 1e3 * figures.quantile(found.quiet, 0.95)
            )
            yield bench.row(f"{name}: a tick that dispatches {ticks.RUNNING} jobs", "ms", 1e3 * found.dispatch)
            yield bench.row(f"{name}: the first tick of a new process", "s", found.start)
            yield bench.row(f"{name}: queueing one job, eight callers", "ms", 1e3 * found.create / jobs)


def _beside(bench: Bench, figure: str, unit: str, value: figures.Figure, ours: Record, peer: Record) -> Row:
    return bench.row(figure, unit, value(ours), peer=value(peer), peer_name=_PEER)


def _slowdown(record: Record) -> float:
    return figures.slowdown(record, 0.95)


def _median_slowdown(record: Record) -> float:
    return figures.slowdown(record, 0.5)
