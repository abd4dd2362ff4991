"""An attempt's driver, submitted to Ray's Jobs API: it has a Ray worker train, publishes, and writes the job's end.

    python -m terroir.training.attempt.driver '{"job_id": …}'

It exits with status 0 when the job's end is written, and with 1 when the attempt should be tried again.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Final

import ray
from ray.exceptions import OutOfMemoryError as RayOutOfMemory
from ray.exceptions import RayError

from terroir.common.clock import Clock, SystemClock
from terroir.common.errors import TerroirError, Unavailable
from terroir.common.tracing import fail_current, reason_of, span
from terroir.common.version import code_version
from terroir.store.blobs import Blobs
from terroir.store.errors import StoreError, StoreUnavailable
from terroir.store.interface import ObjectStore
from terroir.training.artifacts.adapter_file import config_digest
from terroir.training.attempt.access import credentials_of_node, store_of
from terroir.training.attempt.files import AttemptLog, read_progress, write_progress
from terroir.training.attempt.on_ray import train_on_ray
from terroir.training.attempt.order import DriverOrder, Trained
from terroir.training.attempt.tracing import traced_part
from terroir.training.config.parser import parse_config
from terroir.training.engine.ports import Stopped, TrainProgress
from terroir.training.errors import AttemptSuperseded, OutOfMemory
from terroir.training.jobs.attempts import Outcome
from terroir.training.jobs.documents import Job, JobFailure, Jobs, JobState, attempt_prefix
from terroir.training.upstream import Publication, RegistryService

_TRY_AGAIN: Final = 1
"""Exit status."""


class Driver:
    """One attempt from its dispatch to its end."""

    def __init__(self, order: DriverOrder, store: ObjectStore, clock: Clock, train: Callable[[], Trained]) -> None:
        """`train` runs the attempt somewhere and raises what it raised there."""
        self._order = order
        self._store = store
        self._jobs = Jobs(store, clock)
        self._prefix = attempt_prefix(order.job_id, order.attempt)
        self._log = AttemptLog(store, self._prefix, clock)
        self._train = train

    def run(self) -> int:
        """Train and publish; returns the exit status."""
        try:
            job = self._jobs.get(self._order.job_id)
            version = self._publish(job, self._train())
            self._end(JobState.SUCCEEDED, adapter_version=version)
        except Stopped as stopped:
            self._stopped(stopped.step)
        except AttemptSuperseded as error:
            self._log.write(str(error))
        except RayOutOfMemory as error:
            # It would be out of memory again: only faults of the infrastructure are tried again.
            self._end(JobState.FAILED, failure=JobFailure(OutOfMemory.reason, _first_line(error)))
        except (Unavailable, StoreUnavailable, RayError) as error:
            self._log.write(f"this attempt is lost: {type(error).__name__}: {error}")
            fail_current(reason_of(error))
            return _TRY_AGAIN
        except (TerroirError, StoreError) as error:
            self._end(JobState.FAILED, failure=JobFailure(error.reason, str(error)))
        except Exception as error:
            self._log.write(traceback.format_exc())
            message = f"{type(error).__name__}: {error} (the log has the details: terroir train logs)"
            self._end(JobState.FAILED, failure=JobFailure("TRAINING_FAILED", message))
        finally:
            self._log.flush()
        return 0

    def _stopped(self, step: int) -> None:
        job = self._jobs.get(self._order.job_id)
        if job.cancel_requested or not job.preempt_for:
            self._end(JobState.CANCELLED, line=f"stopped on request at step {step}")
            return
        why = f"made room for jobs/{job.preempt_for} at step {step}"
        self._log.write(f"{why}; it goes on from there when there is room")
        self._log.flush()
        number = self._order.attempt
        self._jobs.requeue(job.id, f"preempted/{number}", number, Outcome.PREEMPTED, why)

    def _publish(self, job: Job, trained: Trained) -> str:
        config = parse_config(job.config_yaml).config
        self._phase("publishing")
        blobs, print_digest = Blobs(self._store), trained.training_print_digest
        registry = RegistryService(self._order.registry_target, credentials_of_node())
        try:
            version = registry.publish(
                Publication(
                    adapter=job.adapter,
                    base=job.base,
                    base_digest=trained.base_digest,
                    trigger_word=trained.trigger_word,
                    job=job.name,
                    checkpoint=f"{job.name}/checkpoints/{trained.steps}",
                    dataset_version=trained.dataset_version,
                    dataset_digest=trained.dataset_digest,
                    config_digest=config_digest(config),
                    code_version=code_version(),
                    file_digest=trained.file_digest,
                    region=trained.region,
                    data=blobs.get(trained.file_digest),
                    parent=config.pretrained_lora,
                    metrics=trained.metrics,
                    training_print=blobs.get(print_digest) if print_digest else b"",
                )
            )
        finally:
            registry.close()
        self._phase("done")
        self._log.write(f"published {version} of step {trained.steps}, loss {trained.loss:.4f}")
        return version

    def _phase(self, phase: str) -> None:
        last = read_progress(self._store, self._prefix) or TrainProgress(phase)
        write_progress(
            self._store, self._prefix, TrainProgress(**{**last.__dict__, "phase": phase, "eta_seconds": 0.0})
        )

    def _end(
        self, state: JobState, *, line: str = "", failure: JobFailure | None = None, adapter_version: str = ""
    ) -> None:
        if failure:
            fail_current(failure.reason)
            line = f"failed: {failure.reason}: {failure.message}"
        if line:
            self._log.write(line)
        self._log.flush()
        self._jobs.end(
            self._order.job_id,
            f"end/{self._order.attempt}",
            state,
            attempt=self._order.attempt,
            failure=failure,
            adapter_version=adapter_version,
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:500]


def main() -> None:
    """Run the attempt named on the command line."""
    order = DriverOrder.from_json(sys.argv[1])
    clock, store = SystemClock(), store_of(order)
    with traced_part(order, "driver", "drive attempt"):
        with span("join ray"):
            ray.init(address="auto", log_to_driver=False)
        jobs = Jobs(store, clock)
        status = Driver(order, store, clock, lambda: train_on_ray(order, jobs)).run()
    sys.exit(status)


if __name__ == "__main__":
    main()
