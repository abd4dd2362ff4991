"""What a run left in the store, gathered for its report."""

from __future__ import annotations

from collections.abc import Sequence

from terroir.common.clock import Clock
from terroir.store.blobs import Blobs
from terroir.store.errors import NotFound
from terroir.store.interface import ObjectStore
from terroir.training.artifacts.samples import KeptSamples
from terroir.training.attempt.files import curves_key
from terroir.training.jobs.documents import Job, JobState, attempt_prefix
from terroir.training.judging.errors import NotJudged
from terroir.training.judging.judgement import Judgement
from terroir.training.judging.kept import KeptJudgements
from terroir.training.report.events import Curves, curves_of
from terroir.training.report.page import Report, page_of


def job_report(store: ObjectStore, job: Job, clock: Clock) -> bytes:
    """The page of a job as it is now."""
    attempts = range(1, (job.attempt.number if job.attempt else 0) + 1)
    facts = {
        "job": job.name,
        "state": job.state.value,
        "adapter": job.adapter_version or f"adapters/{job.adapter}",
        "dataset": job.dataset_version,
        "base": f"bases/{job.base}",
        "attempts": str(len(attempts)),
        "begun": job.created_at,
        "ended": job.ended_at,
    }
    failure = f"{job.failure.reason}: {job.failure.message}" if job.failure else ""
    files = [(attempt_prefix(job.id, number), number) for number in attempts]
    return gathered(
        store, job.name, clock, facts, job.config_yaml, read_curves(store, files), failure,
        failed=job.state is JobState.FAILED,
    )  # fmt: skip


def gathered(
    store: ObjectStore, run_prefix: str, clock: Clock, facts: dict[str, str], config_yaml: str, curves: Curves,
    failure: str = "", *, failed: bool = False,
) -> bytes:  # fmt: skip
    """The page of a run that keeps its things below `run_prefix`."""
    judgement = _judgement(store, run_prefix, clock)
    blobs = Blobs(store)
    pictures = {digest: blobs.get(digest) for digest in _digests(judgement)}
    report = Report(
        facts={name: value for name, value in facts.items() if value},
        config_yaml=config_yaml,
        curves=curves,
        judgement=judgement,
        pictures=pictures,
        samples=KeptSamples(store, run_prefix).all(),
        failure=failure if failed else "",
    )
    return page_of(report).encode()


def read_curves(store: ObjectStore, attempts: Sequence[tuple[str, int]]) -> Curves:
    """Of attempts, each by its prefix and number."""
    files = []
    for prefix, number in attempts:
        try:
            files.append(store.get(curves_key(prefix, number)))
        except NotFound:
            continue  # it ended before its first step
    return curves_of(files)


def _judgement(store: ObjectStore, run_prefix: str, clock: Clock) -> Judgement | None:
    try:
        return KeptJudgements(store, run_prefix, clock).newest()
    except NotJudged:
        return None


def _digests(judgement: Judgement | None) -> set[str]:
    measured = [one.measured for one in judgement.checkpoints] if judgement else []
    evidence = {found.picture for one in measured for found in one.evidence}
    return evidence | {one.samples for one in measured if one.samples}
