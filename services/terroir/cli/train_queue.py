"""`terroir train queue`: what runs, what waits and why, and what each team holds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Final

import typer
from rich.table import Table

from terroir._proto.training.v1 import config_pb2 as pb_config
from terroir._proto.training.v1 import training_pb2 as pb
from terroir.cli.session import session, to_dict

_PRIORITY: Final = "PRIORITY_"
_REASON: Final = "WAIT_REASON_"


def queue(
    context: typer.Context,
    waiting: Annotated[int, typer.Option(help="Waiting jobs to show, 1 … 1000.", min=1, max=1000)] = 20,
) -> None:
    """Show the queue: what runs, what waits and why, and what each team holds."""
    this = session(context)
    with this.client() as client:
        found = client.training.queue(waiting)
    if this.as_json:
        this.print_json(to_dict(found))
        return
    now = found.decide_time.ToNanoseconds() / 1e9 or time.time()
    if not found.running and not found.waiting:
        this.console.print("nothing runs and nothing waits")
    if found.running:
        this.console.print(_jobs("runs", found.running, now))
    if found.waiting:
        this.console.print(_jobs("waits", found.waiting, now))
        if (more := found.total_waiting - len(found.waiting)) > 0:
            this.console.print(f"and {more} more (--waiting {min(1000, found.total_waiting)})")
    if found.teams:
        this.console.print(_teams(found.teams))


def describe_wait(wait: pb.JobWait) -> str:
    """Why a job waits, in a line."""
    return f"waits at position {wait.position}: {wait.detail} ({_word(pb.WaitReason.Name(wait.reason), _REASON)})"


def describe_attempt(past: pb.PastAttempt) -> str:
    """An attempt that is over, in a line."""
    began = past.start_time if past.HasField("start_time") else past.submit_time
    took = (past.end_time.ToNanoseconds() - began.ToNanoseconds()) / 1e9
    node = f" on node {past.node_id[:12]}" if past.node_id else ""
    outcome = _word(pb.AttemptOutcome.Name(past.outcome), "ATTEMPT_OUTCOME_")
    return f"attempt {past.number}{node} {outcome} after {_duration(took)}: {past.message}"


def _jobs(verb: str, entries: Iterable[pb.QueueEntry], now: float) -> Table:
    waits = verb == "waits"
    columns = ("", "job", "team", "class", "needs", f"{verb} for", "why" if waits else "")
    table = Table(*columns, box=None, pad_edge=False)
    for entry in entries:
        priority = _word(pb_config.TrainConfig.Priority.Name(entry.priority), _PRIORITY)
        since = _duration(now - entry.since_time.ToNanoseconds() / 1e9)
        room = f"makes room for {entry.makes_room_for}" if entry.makes_room_for else ""
        why = f"{_word(pb.WaitReason.Name(entry.wait.reason), _REASON)}: {entry.wait.detail}" if waits else room
        place = str(entry.wait.position) if waits else ""
        table.add_row(place, entry.job, entry.team, priority, _needs(entry), since, why)
    return table


def _teams(shares: Iterable[pb.TeamShare]) -> Table:
    table = Table("team", "runs", "waits", "GPUs now", "of late", "cores now", "weight", box=None, pad_edge=False)
    for share in shares:
        jobs = f"{share.running_jobs}{_of(share, 'quota_jobs')}"
        gpus = f"{share.gpus:g}{_of(share, 'quota_gpus')}"
        late, cpus, weight = f"{share.recent_gpus:.1f}", f"{share.cpus:g}", f"{share.weight:g}"
        table.add_row(share.team, jobs, str(share.waiting_jobs), gpus, late, cpus, weight)
    return table


def _of(share: pb.TeamShare, quota: str) -> str:
    return f" of {getattr(share, quota):g}" if share.HasField(quota) else ""  # type: ignore[arg-type]  # one of two


def _needs(entry: pb.QueueEntry) -> str:
    each = f"{entry.gpus:g} GPU" if entry.gpus else f"{entry.cpus:g} cores"
    return each if entry.workers == 1 else f"{entry.workers} × {each}"


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower().replace("_", " ")


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole / 3600:.1f} h"
