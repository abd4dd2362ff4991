"""Domain values as messages of the contract."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp

from terroir._proto.training.v1 import config_pb2 as pb_config
from terroir._proto.training.v1 import training_pb2 as pb
from terroir.training.artifacts.checkpoints import SavedCheckpoint
from terroir.training.config.messages import to_message
from terroir.training.config.parser import parse_config
from terroir.training.engine.ports import TrainProgress
from terroir.training.errors import ConfigInvalid
from terroir.training.jobs.attempts import Attempt
from terroir.training.jobs.documents import Job, JobState
from terroir.training.jobs.queue_messages import past_attempt_message, wait_message
from terroir.training.judging.judgement import JudgedCheckpoint, Judgement
from terroir.training.scheduling.model import Wait

_STATES = {
    JobState.QUEUED: pb.JOB_STATE_QUEUED,
    JobState.RUNNING: pb.JOB_STATE_RUNNING,
    JobState.SUCCEEDED: pb.JOB_STATE_SUCCEEDED,
    JobState.FAILED: pb.JOB_STATE_FAILED,
    JobState.CANCELLED: pb.JOB_STATE_CANCELLED,
}


def job_message(
    job: Job, progress: TrainProgress | None, wait: Wait | None = None, judgement: Judgement | None = None
) -> pb.Job:
    """A job with the progress of its attempt, or with why it waits, and what its judgement found."""
    return pb.Job(
        name=job.name,
        state=_STATES[job.state],
        config_yaml=job.config_yaml,
        dataset_version=job.dataset_version,
        base=f"bases/{job.base}",
        adapter=f"adapters/{job.adapter}",
        adapter_version=job.adapter_version,
        progress=_progress(progress or TrainProgress("queued")),
        attempt=_attempt(job.attempt) if job.attempt else None,
        error=pb.JobError(reason=job.failure.reason, message=job.failure.message) if job.failure else None,
        create_time=_timestamp(job.created_at),
        end_time=_timestamp(job.ended_at) if job.ended_at else None,
        etag=job.etag,
        creator=job.creator,
        wait=wait_message(wait) if wait is not None and not job.dispatched and not job.ended else None,
        past_attempts=[past_attempt_message(past) for past in job.history],
        makes_room_for=f"jobs/{job.preempt_for}" if job.preempt_for else "",
        verdict=verdict_message(judgement) if judgement else None,
    )


def verdict_message(judgement: Judgement, *, evidence: bool = False) -> pb.JobVerdict:
    """What a judgement found; what its pictures are closest to only where `evidence` is asked for."""
    return pb.JobVerdict(
        verdict=judgement.verdict.value,
        chosen_step=judgement.chosen_step,
        gate=judgement.gate,
        bounds=asdict(judgement.thresholds),
        checkpoints=[_judged(one, evidence) for one in judgement.checkpoints],
        left_out_steps=judgement.left_out,
        advice=judgement.advice,
        pictures=judgement.pictures,
        seconds=judgement.seconds,
    )


def _judged(one: JudgedCheckpoint, evidence: bool) -> pb.JudgedCheckpoint:
    nearest = one.measured.evidence if evidence else ()
    return pb.JudgedCheckpoint(
        step=one.step,
        verdict=one.verdict.value,
        scores=one.scores.metrics() if one.scores else {},
        missed=one.failed,
        broken=one.measured.broken,
        nearest=[
            pb.NearestPicture(
                prompt=found.prompt,
                seed=found.seed,
                training_picture=found.training_picture,
                pixels=found.pixels,
                embedding=found.embedding,
                is_copy=found.is_copy,
            )
            for found in nearest
        ],
    )


def checkpoint_message(job: Job, saved: SavedCheckpoint) -> pb.Checkpoint:
    """A checkpoint of a job."""
    return pb.Checkpoint(
        name=f"{job.name}/checkpoints/{saved.step}",
        step=saved.step,
        loss=saved.loss,
        size_bytes=saved.adapter_bytes,
        create_time=_timestamp(saved.created_at),
    )


@lru_cache(maxsize=256)  # whoever watches a job asks several times a second
def config_message(config_yaml: str) -> pb_config.TrainConfig | None:
    """A job's configuration as fields; None for a job of another version, with keys that this one does not know."""
    try:
        return to_message(parse_config(config_yaml).config)
    except ConfigInvalid:
        return None


def _attempt(attempt: Attempt) -> pb.Attempt:
    return pb.Attempt(
        number=attempt.number,
        submission_id=attempt.submission_id,
        worker_pid=attempt.worker_pid,
        node_id=attempt.node_id,
    )


def _progress(progress: TrainProgress) -> pb.Progress:
    known = pb.Progress.DESCRIPTOR.fields_by_name
    return pb.Progress(**{key: value for key, value in progress.__dict__.items() if key in known})


def _timestamp(text: str) -> Timestamp:
    stamp = Timestamp()
    stamp.FromJsonString(text)
    return stamp
