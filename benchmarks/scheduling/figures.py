"""What a simulated week comes to: use, waiting, fairness, faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.scheduling.week import Course, Record, Sample

Figure = Callable[[Record], float]


@dataclass(frozen=True)
class Waits:
    """Seconds from creation to the first start, of some jobs."""

    count: int
    median: float
    p95: float
    most: float


def utilisation(record: Record) -> float:
    """Share of the GPU time of nodes that were up that jobs held while the styles came."""
    held, there = 0.0, 0.0
    for sample, seconds in spans(record):
        held += seconds * sum(sample.held.values())
        there += seconds * sample.gpus
    return held / there


def busy_utilisation(record: Record) -> float:
    """The same over the time in which jobs waited: what is idle then is lost."""
    held, there = 0.0, 0.0
    for sample, seconds in spans(record):
        if sample.waiting:
            held += seconds * sum(sample.held.values())
            there += seconds * sample.gpus
    return held / there if there else 1.0


def fairness(record: Record) -> float:
    """Jain's index of the teams' GPU time over their weights while all of them waited: 1 is even, 1/3 one team alone.

    R. Jain, D. Chiu, W. Hawe: A Quantitative Measure of Fairness, DEC-TR-301, 1984.
    """
    teams = sorted({course.style.team for course in record.courses.values()})
    got = dict.fromkeys(teams, 0.0)
    for sample, seconds in spans(record):
        if all(sample.waiting.get(team) for team in teams):
            for team in teams:
                got[team] += seconds * sample.held.get(team, 0.0) / record.world.quotas.of(team).weight
    total, squares = sum(got.values()), sum(value**2 for value in got.values())
    return total**2 / (len(teams) * squares) if squares else 1.0


def contended_hours(record: Record) -> float:
    """How long every team had something waiting."""
    teams = {course.style.team for course in record.courses.values()}
    return sum(seconds for sample, seconds in spans(record) if teams <= sample.waiting.keys()) / 3600


def waits(record: Record, which: Callable[[Course], bool] = lambda _: True) -> Waits:
    """Of the jobs that `which` picks."""
    found = [
        course.started - course.style.created
        for course in record.courses.values()
        if course.started is not None and which(course)
    ]
    return Waits(len(found), quantile(found, 0.5), quantile(found, 0.95), max(found, default=0.0))


def slowdown(record: Record, share: float) -> float:
    """Quantile of the time from creation to end over the time that the job would take alone."""
    taken = [
        (course.ended - course.style.created) / course.style.seconds
        for course in record.courses.values()
        if course.ended is not None
    ]
    return quantile(taken, share)


def spans(record: Record) -> Iterator[tuple[Sample, float]]:
    """Every sample with the seconds until the next one, up to the end of the week."""
    for sample, after in pairwise(record.samples):
        seconds = min(after.at, record.world.seconds) - sample.at
        if seconds > 0:
            yield sample, seconds


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile; 0 of nothing."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0
