"""A reduced week of the simulation: everything ends, nothing is held twice, and our policy is worth having."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.__main__ import RESULTS
from benchmarks.areas.scheduling import PAGE
from benchmarks.rows import load_all
from benchmarks.scheduling import figures, plot, table
from benchmarks.scheduling.week import Record, Week, first_come_first_served
from benchmarks.scheduling.workload import DAY, Outage, World, flooded, world
from terroir.training.config.scheduling_keys import Priority
from terroir.training.scheduling.policy import decide


@pytest.fixture(scope="module")
def busy() -> World:
    """Three days on two nodes, one of which fails for some hours."""
    quiet = world(styles=110, nodes=2, days=3.0)
    return replace(quiet, outages=(Outage("node-1", 1.4 * DAY, 1.5 * DAY),))


@pytest.fixture(scope="module")
def ours(busy: World) -> Record:
    return Week(busy, decide).run()


@pytest.fixture(scope="module")
def peer(busy: World) -> Record:
    return Week(busy, first_come_first_served).run()


def test_every_job_ends_and_trains_all_of_its_time(ours: Record) -> None:
    assert all(course.ended is not None for course in ours.courses.values())
    assert all(course.done == course.style.seconds for course in ours.courses.values())


def test_at_no_moment_more_is_held_than_there_is_or_than_a_quota_allows(ours: Record) -> None:
    for sample in ours.samples:
        assert sum(sample.held.values()) <= sample.gpus
        assert sample.held.get("research", 0.0) <= 32


def test_faults_cost_at_most_one_checkpoint_interval_each(ours: Record) -> None:
    lost = [course for course in ours.courses.values() if course.losses]
    assert lost and all(course.lost_seconds <= 600 * course.losses for course in lost)


def test_urgent_jobs_wait_less_than_in_order_of_creation_and_no_gpu_time_is_lost_for_it(
    ours: Record, peer: Record
) -> None:
    def high(record: Record) -> float:
        return figures.waits(record, lambda course: course.style.priority is Priority.HIGH).p95

    assert high(ours) < high(peer) / 10
    assert figures.busy_utilisation(ours) >= figures.busy_utilisation(peer)


def test_a_flood_of_one_team_does_not_stop_the_others(busy: World) -> None:
    week = flooded(busy, 40)
    at = DAY + 9 * 3600

    def others(record: Record) -> figures.Waits:
        return figures.waits(
            record, lambda c: c.style.team != "brands" and c.style.priority != Priority.LOW and c.style.created >= at
        )

    mine, theirs = others(Week(week, decide).run()), others(Week(week, first_come_first_served).run())
    assert mine.median < theirs.median / 2


def test_the_same_seed_gives_the_same_week(busy: World) -> None:
    few = replace(busy, styles=busy.styles[:40])
    first, second = (Week(few, decide).run() for _ in range(2))
    assert [sample.held for sample in first.samples] == [sample.held for sample in second.samples]
    teams = Counter(style.team for style in busy.styles)
    assert teams["studio"] > teams["brands"] > teams["research"]


def test_the_picture_is_an_svg_with_a_panel_for_each_policy(ours: Record, peer: Record, tmp_path: Path) -> None:
    path = tmp_path / "week.svg"
    plot.draw(path, "A week", {"ours": ours, "theirs": peer})
    root = ElementTree.parse(path).getroot()
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert names.count("polygon") == 6 and names.count("polyline") == 2


def test_the_page_shows_the_figures_of_the_published_run() -> None:
    (result,) = load_all(RESULTS, ["scheduling"])
    text = PAGE.read_text(encoding="utf-8")
    assert text.partition(table.BEGIN)[2].partition(table.END)[0] == "\n" + table.render(result.rows)
