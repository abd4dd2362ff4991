"""The scheduling policy: one pure function from what is known to what should happen now.

The queue calls it at every tick with jobs from the store, the simulation with invented ones. In order of urgency each
waiting job is given to Ray if quota, job limit and room allow; else it may have room made for it by pre-emption; else
later jobs may pass it (backfill), until it has waited so long that room is kept for it.
"""

from __future__ import annotations

from dataclasses import replace

from terroir.training.config.scheduling_keys import Priority
from terroir.training.scheduling.fairness import Shares
from terroir.training.scheduling.holdings import Holdings
from terroir.training.scheduling.model import (
    Decision,
    Demand,
    Preemption,
    RunningJob,
    Situation,
    Wait,
    WaitingJob,
    WaitReason,
)
from terroir.training.scheduling.preemption import candidates, victims
from terroir.training.scheduling.ranking import outranks, ranked


def decide(situation: Situation) -> Decision:
    """Whom to start, whom to stop for whom, and why each other job waits. Equal situations give equal decisions."""
    return _Round(_in_one_order(situation)).decision()


def _in_one_order(situation: Situation) -> Situation:
    """The same told in the order of identifiers: sums of floats, ties and the words for people depend on the order."""
    waiting = sorted(situation.waiting, key=lambda job: job.id)
    return replace(situation, waiting=waiting, running=sorted(situation.running, key=lambda job: job.id))


class _Round:
    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        self._holdings = Holdings(situation)
        self._shares = Shares(situation)
        self._dispatch: list[str] = []
        self._preempt: list[Preemption] = []
        self._waits: dict[str, Wait] = {}
        self._leaving = [job for job in situation.running if job.stopping]
        """Jobs whose room will be free in a moment."""
        self._candidates: dict[Priority, list[RunningJob]] = {}
        self._words: dict[tuple[object, ...], str] = {}
        self._holders: dict[str, str] = {}
        """By team: the job that its quota, or room, is kept for."""
        self._room_holder = ""
        """The job that room on the cluster is kept for."""
        self._refused: dict[tuple[str, Priority], list[Demand]] = {}
        """For which nobody can make room; there is ever less of it."""

    def decision(self) -> Decision:
        """Look at every job once."""
        now, rules = self._situation.now, self._situation.rules
        promised = {job.stopping_for for job in self._situation.running if job.stopping_for}
        eligible = [
            replace(job, promised=True) if job.id in promised else job
            for job in self._situation.waiting
            if job.not_before <= now
        ]
        for job in ranked(eligible, self._shares, now, rules):
            self._consider(job)
        for job in sorted(self._situation.waiting, key=lambda job: (job.not_before, job.id)):
            if job.not_before > now:
                self._wait(job, WaitReason.BACK_OFF, f"tries again in {job.not_before - now:.0f} s")
        return Decision(tuple(self._dispatch), tuple(self._preempt), self._waits)

    def _consider(self, job: WaitingJob) -> None:
        obstacles = self._holdings.obstacles(job)
        if not obstacles:
            self._holdings.take(job)
            self._shares.add(job.team, job.demand)
            self._dispatch.append(job.id)
        elif impossible := self._holdings.impossible(job):
            self._wait(job, WaitReason.UNSATISFIABLE, impossible)
        elif making_room := self._room_made(job):
            self._wait(job, WaitReason.PREEMPTING, making_room)
        else:
            self._leave_waiting(job, obstacles)

    def _room_made(self, job: WaitingJob) -> str:
        """Take what jobs that stop will leave, and ask more to stop if that is needed; says who, or nothing."""
        refused = self._refused.setdefault((job.team, job.priority), [])
        if any(demand.within(job.demand) for demand in refused):
            return ""
        leaving = [each for each in self._leaving if outranks(job.priority, each.priority)]
        with self._holdings.without(leaving):
            chosen: list[RunningJob] | None = []
            if self._holdings.obstacles(job):
                gone = {each.id for each in self._leaving}
                able = [each for each in self._able(job.priority) if each.id not in gone]
                chosen = victims(job, able, self._holdings) if able else None
            if chosen is not None:
                with self._holdings.without(chosen):
                    self._holdings.take(job)
        if chosen is None:
            refused.append(job.demand)
            return ""
        self._shares.add(job.team, job.demand)
        self._preempt += [Preemption(each.id, job.id) for each in chosen]
        self._leaving += chosen
        stopping = ", ".join(f"jobs/{each.id}" for each in (chosen or leaving))
        return f"{stopping} {'saves its' if len(chosen or leaving) == 1 else 'save their'} state to make room"

    def _able(self, priority: Priority) -> list[RunningJob]:
        if priority not in self._candidates:
            self._candidates[priority] = candidates(priority, self._situation)
        return self._candidates[priority]

    def _leave_waiting(self, job: WaitingJob, obstacles: list[WaitReason]) -> None:
        reason = obstacles[0]
        detail = self._told(reason, job)
        if kept := self._kept_for(reason, job):
            reason, detail = WaitReason.RESERVED, f"{detail}; room is kept for jobs/{kept}, which waited long"
        self._wait(job, reason, detail)
        self._reserve(job, obstacles)

    def _reserve(self, job: WaitingJob, obstacles: list[WaitReason]) -> None:
        """Keep what is free for a job that waited long: of each team's quota for one, of the cluster for one in all.

        As in EASY backfill: with one a team, three large jobs emptied half of a small cluster for hours.
        """
        waited = self._situation.now - job.waiting_since
        room = WaitReason.QUOTA not in obstacles
        if waited < self._situation.rules.reserve_after_seconds or job.team in self._holders:
            return
        if room and self._room_holder:
            return
        self._holders[job.team] = job.id
        self._room_holder = self._room_holder or (job.id if room else "")
        self._holdings.hold(job, room=room)

    def _kept_for(self, reason: WaitReason, job: WaitingJob) -> str:
        if reason is WaitReason.CAPACITY:
            return self._room_holder
        return self._holders.get(job.team, "") if reason is WaitReason.QUOTA else ""

    def _told(self, reason: WaitReason, job: WaitingJob) -> str:
        # A thousand jobs wait for few different reasons.
        key = (reason, job.team, job.demand, len(self._dispatch), len(self._holders))
        if (known := self._words.get(key)) is None:
            known = self._words[key] = self._holdings.told(reason, job)
        return known

    def _wait(self, job: WaitingJob, reason: WaitReason, detail: str) -> None:
        self._waits[job.id] = Wait(len(self._waits) + 1, reason, detail)
