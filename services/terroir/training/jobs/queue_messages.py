"""The queue as messages of the contract."""

from __future__ import annotations

from collections import Counter
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from terroir._proto.training.v1 import config_pb2 as pb_config
from terroir._proto.training.v1 import training_pb2 as pb
from terroir.training.config.scheduling_keys import Priority
from terroir.training.jobs.attempts import Outcome, PastAttempt
from terroir.training.jobs.queue import Standing
from terroir.training.scheduling.model import RunningJob, Situation, Usage, Wait, WaitingJob

_PRIORITIES: Final = {
    Priority.LOW: pb_config.TrainConfig.PRIORITY_LOW,
    Priority.NORMAL: pb_config.TrainConfig.PRIORITY_NORMAL,
    Priority.HIGH: pb_config.TrainConfig.PRIORITY_HIGH,
}


def wait_message(wait: Wait) -> pb.JobWait:
    """Why a job waits."""
    reason = pb.WaitReason.Value(f"WAIT_REASON_{wait.reason.value}")
    return pb.JobWait(position=wait.position, reason=reason, detail=wait.detail)


def past_attempt_message(past: PastAttempt) -> pb.PastAttempt:
    """An attempt that is over."""
    return pb.PastAttempt(
        number=past.number,
        node_id=past.node_id,
        submit_time=_time_of(past.since),
        start_time=_time_of(past.started),
        end_time=_time_of(past.ended),
        outcome=_outcome(past.outcome),
        message=past.why,
    )


def queue_message(standing: Standing, max_waiting: int) -> pb.Queue:
    """What the last tick saw."""
    seen = standing.situation
    if seen is None:
        return pb.Queue()
    waiting = {job.id: job for job in seen.waiting}
    shown = list(standing.waits)[:max_waiting]
    return pb.Queue(
        running=[_running(job) for job in sorted(seen.running, key=lambda job: (job.since, job.id))],
        waiting=[_waiting(waiting[job_id], standing.waits[job_id]) for job_id in shown],
        total_waiting=len(standing.waits),
        teams=_teams(seen),
        decide_time=_time(seen.now),
    )


def _running(job: RunningJob) -> pb.QueueEntry:
    entry = _entry(job, job.since)
    entry.makes_room_for = f"jobs/{job.stopping_for}" if job.stopping_for else ""
    return entry


def _waiting(job: WaitingJob, wait: Wait) -> pb.QueueEntry:
    entry = _entry(job, job.waiting_since)
    entry.wait.CopyFrom(wait_message(wait))
    return entry


def _entry(job: RunningJob | WaitingJob, since: float) -> pb.QueueEntry:
    return pb.QueueEntry(
        job=f"jobs/{job.id}",
        team=job.team,
        priority=_PRIORITIES[job.priority],
        workers=job.demand.workers,
        gpus=job.demand.gpus,
        cpus=job.demand.cpus,
        since_time=_time(since),
    )


def _teams(seen: Situation) -> list[pb.TeamShare]:
    runs, waits = (Counter(job.team for job in jobs) for jobs in (seen.running, seen.waiting))
    shares = []
    for team in sorted(runs.keys() | waits.keys() | seen.usage.keys()):
        quota, usage = seen.quotas.of(team), seen.usage.get(team, Usage())
        held = [job.demand for job in seen.running if job.team == team]
        shares.append(
            pb.TeamShare(
                team=team,
                running_jobs=runs[team],
                waiting_jobs=waits[team],
                gpus=sum(demand.total_gpus for demand in held),
                cpus=sum(demand.total_cpus for demand in held),
                quota_gpus=quota.gpus,
                quota_jobs=quota.jobs,
                weight=quota.weight,
                recent_gpus=usage.gpus,
                recent_cpus=usage.cpus,
            )
        )
    return shares


def _outcome(outcome: Outcome) -> pb.AttemptOutcome.ValueType:
    return pb.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{outcome.name}")


def _time(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(round(seconds * 1e9))
    return stamp


def _time_of(text: str) -> Timestamp | None:
    if not text:
        return None
    stamp = Timestamp()
    stamp.FromJsonString(text)
    return stamp
