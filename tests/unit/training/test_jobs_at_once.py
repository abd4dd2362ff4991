"""Jobs handed in at once, by many callers through two replicas, over a real folder.

TERROIR_SOAK_QUEUED_JOBS sets how many; the soak takes 1,000.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from terroir.common.clock import FixedClock
from terroir.store.local import LocalStore
from terroir.training.cluster.ray_jobs import SubmissionStatus
from terroir.training.jobs.documents import Jobs
from terroir.training.jobs.queue_plan import QueueLimits
from terroir.training.scheduling.model import Capacity, Quota, Quotas, WaitReason
from terroir.training.scheduling.wishes import Wish
from tests.unit.training.test_queue import House

TEAMS = ("studio", "brands", "research")
JOBS, PLACES = int(os.environ.get("TERROIR_SOAK_QUEUED_JOBS", "200")), 12


def test_jobs_handed_in_at_once_are_all_queued_and_run_in_turn_within_quotas(tmp_path: Path) -> None:
    """Each is queued once, though a quarter is handed in twice."""
    limits = QueueLimits(Capacity(PLACES), Quotas({"research": Quota(jobs=2)}))
    house = House(LocalStore(tmp_path), FixedClock(), limits=limits)
    replicas = [house.replica(), house.replica()]
    writers = [Jobs(house.store, house.clock) for _ in range(2)]

    def hand_in(number: int) -> str:
        wish = Wish(TEAMS[number % JOBS % 3])
        return (
            writers[number % 2]
            .create(f"request-{number % JOBS}", adapter="a", base="b", dataset_version="d", config_yaml="", wish=wish)
            .id
        )

    with ThreadPoolExecutor(16) as callers:
        made = list(callers.map(hand_in, range(JOBS + JOBS // 4)))
    assert len(set(made)) == JOBS
    for replica in replicas:
        replica.tick()
    first, second = replicas
    given = [order.job_id for order in house.ray.orders]
    assert len(given) == len(set(given)) == PLACES
    teams = [job.wish.team for job in map(first.view.get, given) if job]
    assert {team: teams.count(team) for team in TEAMS} == {"studio": 5, "brands": 5, "research": 2}
    second.tick()
    waits = second.standing.waits
    assert len(waits) == JOBS - PLACES and [wait.position for wait in waits.values()] == list(range(1, len(waits) + 1))
    assert {wait.reason for wait in waits.values()} <= {WaitReason.JOB_LIMIT, WaitReason.QUOTA}
    for order in house.ray.orders[:3]:
        house.ray.submissions[order.submission_id] = SubmissionStatus.FAILED
        house.jobs.request_cancel(order.job_id)
    for replica in replicas:
        replica.tick()
    assert len(house.ray.orders) == PLACES + 3
