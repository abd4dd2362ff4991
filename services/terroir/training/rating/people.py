"""People's verdict where a job asks for it: told to its publish gate, and the job goes on once there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from terroir.training.jobs.documents import Job, Jobs, JobState
from terroir.training.judging.gate import RatingScores
from terroir.training.rating.gate import Outcome, PeopleVerdict, verdict_of
from terroir.training.rating.model import Sheet
from terroir.training.rating.scores import scores_of
from terroir.training.rating.sheets import Sheets

WAITING: Final = "RATING_MISSING"
"""Reason of a job that passed by its figures and waits for people."""


def verdict_on(sheet: Sheet) -> PeopleVerdict:
    """What the answers on a sheet amount to."""
    return verdict_of(scores_of(sheet), len(sheet.submissions))


def people_on(sheets: Sheets, job_id: str) -> RatingScores | None:
    """For the publish gate: the newest sheet of the job that has enough answers; None while there is none."""
    sheet = _decisive(sheets, job_id)
    if sheet is None:
        return None
    verdict = verdict_on(sheet)
    return RatingScores(len(sheet.submissions), verdict.outcome is Outcome.PASSED, verdict.reason)


def people_metrics(sheets: Sheets, job_id: str) -> Mapping[str, float]:
    """The figures of that sheet, by the names that a version carries; empty while there is none."""
    sheet = _decisive(sheets, job_id)
    scores = scores_of(sheet) if sheet else None
    return scores.metrics(len(sheet.submissions)) if sheet and scores else {}


def take_up(jobs: Jobs, sheet: Sheet) -> Job | None:
    """Queue the job of a sheet again if it waits for these answers; None if there is nothing to do.

    Its next attempt trains nothing: it finds its last checkpoint and its judgement, and publishes or refuses.
    """
    if not sheet.job or verdict_on(sheet).outcome is Outcome.PENDING:
        return None
    job = jobs.get(sheet.job)
    if job.failure is None or job.failure.reason != WAITING:
        return None
    number = job.attempt.number if job.attempt else 0
    return jobs.change(job.id, f"rated/{number}", _again)


def _decisive(sheets: Sheets, job_id: str) -> Sheet | None:
    return next((one for one in sheets.of_job(job_id) if verdict_on(one).outcome is not Outcome.PENDING), None)


def _again(job: Job) -> Job:
    if job.failure is None or job.failure.reason != WAITING:
        return job
    return replace(job, state=JobState.QUEUED, dispatched=False, failure=None, ended_at="")
