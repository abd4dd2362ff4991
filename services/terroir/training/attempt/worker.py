"""What runs in the Ray worker: fetch the pictures, train, and leave the adapter file in the object store."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from terroir.common.base_digest import base_digest, component_digests
from terroir.common.clock import Clock
from terroir.common.credentials import CallerCredentials
from terroir.common.tracing import span, trace_ids
from terroir.lora.adapter import Adapter
from terroir.store.blobs import Blobs
from terroir.store.interface import ObjectStore
from terroir.training.artifacts.adapter_file import kohya_file
from terroir.training.artifacts.checkpoints import Checkpoints
from terroir.training.artifacts.curves import Curves
from terroir.training.artifacts.pretrained import fetch
from terroir.training.artifacts.samples import KeptSamples, Sampler, sampler_of
from terroir.training.attempt.files import AttemptLog, write_progress
from terroir.training.attempt.order import DriverOrder, Trained
from terroir.training.config import TrainConfig
from terroir.training.config.parser import parse_config
from terroir.training.engine.cache import StoreArrayCache
from terroir.training.engine.parallel import Silent
from terroir.training.engine.ports import Checkpoint, Collective, Pictures, TrainProgress, TrainRun
from terroir.training.engine.train import train
from terroir.training.errors import AttemptSuperseded, BaseMismatch, BaseUnreadable
from terroir.training.jobs.documents import Job, Jobs, JobState, attempt_prefix, ensure_current
from terroir.training.judging.of_job import choose_for_job
from terroir.training.judging.prompts import Base
from terroir.training.judging.run import JudgedRun
from terroir.training.judging.training_print import kept_print
from terroir.training.upstream import DatasetService, FrozenDataset, RegistryService

_CANCEL_SECONDS = 0.25
_LOG_SECONDS = 2.0


class JobSinks:
    """Reports of a run, for one attempt at one job."""

    def __init__(
        self, store: ObjectStore, jobs: Jobs, order: DriverOrder, log: AttemptLog, curves: Curves, clock: Clock
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._order = order
        self._prefix = attempt_prefix(order.job_id, order.attempt)
        self._log = log
        self._curves = curves
        self._clock = clock
        self._checkpoints = Checkpoints(store, f"jobs/{order.job_id}", clock)
        self._sampler: Sampler | None = None
        self._asked = self._logged = float("-inf")
        self._stop = False

    def progress(self, progress: TrainProgress) -> None:
        """Store the progress for watchers, and log it now and then."""
        write_progress(self._store, self._prefix, progress)
        if progress.phase not in ("training", "judging") or self._clock.monotonic() - self._logged >= _LOG_SECONDS:
            self._logged = self._clock.monotonic()
            drawn = f" {progress.drawn}/{progress.to_draw} pictures" if progress.to_draw else ""
            self._log.write(
                f"{progress.phase}{drawn} step {progress.step}/{progress.total_steps} loss {progress.loss:.4f} "
                f"lr {progress.learning_rate:.3g} {progress.steps_per_second:.2f} steps/s, "
                f"{progress.eta_seconds:.0f} s left"
            )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self._curves.add(step, values)

    def log(self, line: str) -> None:
        """Add a line to the log."""
        self._log.write(line)

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint; raises AttemptSuperseded when another attempt has taken over."""
        self._checkpoints.save(
            checkpoint,
            self._order.attempt,
            lambda: ensure_current(self._jobs.get(self._order.job_id), self._order.attempt),
        )
        self._log.write(f"saved checkpoint of step {checkpoint.step}, loss {checkpoint.loss:.4f}")

    def begin(self, run: TrainRun) -> None:
        """Tell what is trained, before it is; samples need it."""
        kept = KeptSamples(self._store, f"jobs/{self._order.job_id}")
        self._sampler = sampler_of(run, kept, self.log, self._curves)

    def sample(self, step: int, adapter: Adapter) -> None:
        """Draw the run's sample prompts."""
        if self._sampler is not None:
            self._sampler.sample(step, adapter)

    def newest(self) -> Checkpoint | None:
        """The checkpoint of this or an earlier attempt."""
        return self._checkpoints.newest()

    def stop_requested(self) -> bool:
        """Whether to cancel or to make room; reads the job at most a few times a second.

        Raises AttemptSuperseded when another attempt has taken over.
        """
        if not self._stop and self._clock.monotonic() - self._asked >= _CANCEL_SECONDS:
            self._asked = self._clock.monotonic()
            job = self._jobs.get(self._order.job_id)
            ensure_current(job, self._order.attempt)
            self._stop = job.cancel_requested or bool(job.preempt_for)
        return self._stop


def train_attempt(
    order: DriverOrder,
    store: ObjectStore,
    credentials: CallerCredentials,
    node_id: Callable[[], str],
    clock: Clock,
    collective: Collective | None = None,
) -> Trained:
    """Run one attempt in this process, the first of `collective` if it has others.

    Raises what the engine and the upstream services raise.
    """
    jobs, prefix = Jobs(store, clock), attempt_prefix(order.job_id, order.attempt)
    log = AttemptLog(store, prefix, clock)
    job = jobs.change(
        order.job_id, f"running/{order.attempt}", lambda job: _running(job, order, os.getpid(), node_id(), clock)
    )
    trace = f", trace {ids['trace_id']}" if (ids := trace_ids()) else ""
    log.write(f"attempt {order.attempt} of {job.name} runs in process {os.getpid()}{trace}")
    try:
        with Curves(store, prefix, order.attempt, clock) as curves:
            sinks = JobSinks(store, jobs, order, log, curves, clock)
            return _train(order, job, store, credentials, sinks, clock, collective)
    except Exception as error:
        log.write(f"{type(error).__name__}: {error}")
        raise
    finally:
        log.flush()


def assist_attempt(
    order: DriverOrder, store: ObjectStore, credentials: CallerCredentials, clock: Clock, collective: Collective
) -> None:
    """Be one of the other workers of an attempt: train on a share of each batch, and report nothing."""
    material = _material(order, Jobs(store, clock).get(order.job_id), credentials)
    train(material.run, material.data, Silent(), StoreArrayCache(store), clock, material.ordinary, collective)


@dataclass(frozen=True)
class _Material:
    """What each worker of an attempt needs."""

    run: TrainRun
    dataset: FrozenDataset
    data: Pictures
    ordinary: Pictures
    """Of what must not change."""
    base_digest: str


def _train(
    order: DriverOrder,
    job: Job,
    store: ObjectStore,
    credentials: CallerCredentials,
    sinks: JobSinks,
    clock: Clock,
    collective: Collective | None,
) -> Trained:
    sinks.progress(TrainProgress("preparing"))
    material = _material(order, job, credentials)
    run, data, dataset = material.run, material.data, material.dataset
    sinks.begin(run)
    with span("train", pictures=len(data), device=run.device, threads=run.threads) as training:
        result = train(run, data, sinks, StoreArrayCache(store), clock, material.ordinary, collective)
        training.set(steps=result.steps, loss=result.loss)
    trigger = run.config.trigger_word or dataset.trigger_word
    judged = JudgedRun(
        config=run.config,
        base=Base(run.base_dir, material.base_digest),
        trigger=trigger,
        data=data,
        device=run.device,
        judge_model=Path(order.judge_model) if order.judge_model else None,
        threads=run.threads,
    )
    with span("judge", gate=run.config.publish_gate.value) as judging:
        result, metrics = choose_for_job(order, store, result, judged, sinks, clock)
        judging.set(step=result.steps)
    with span("make training print", pictures=len(data)):
        print_digest = kept_print(judged, store, f"jobs/{order.job_id}", sinks.log)
    with span("write adapter", adapter=job.adapter) as writing:
        file = kohya_file(result, run.config, title=job.adapter, base_digest=material.base_digest, trigger_word=trigger)
        file_digest = Blobs(store).put(file)
        writing.set(size_bytes=len(file), digest=file_digest)
    return Trained(
        file_digest=file_digest,
        base_digest=material.base_digest,
        dataset_version=dataset.name,
        dataset_digest=dataset.digest,
        trigger_word=trigger,
        region=dataset.region,
        steps=result.steps,
        loss=result.loss,
        metrics=metrics,
        training_print_digest=print_digest,
    )


def _material(order: DriverOrder, job: Job, credentials: CallerCredentials) -> _Material:
    config = parse_config(job.config_yaml).config
    folder = _base_folder(order, job.base)
    with span("check base", base=job.base):
        components = component_digests(folder)
        digest = base_digest(components)
        _check_base(order, credentials, job.base, digest)
    service = DatasetService(order.dataset_target, credentials)
    try:
        with span("fetch dataset", dataset=job.dataset_version) as fetching:
            dataset = service.version(job.dataset_version)
            data = list(service.pictures(dataset))
            ordinary = list(service.pictures(service.version(config.reg_dataset))) if config.reg_dataset else []
            fetching.set(pictures=len(data), regularisation=len(ordinary))
    finally:
        service.close()
    run = TrainRun(
        config=config,
        base_dir=folder,
        component_digests=components,
        trigger_word=dataset.trigger_word,
        device="cuda" if order.gpus else "cpu",
        threads=order.cpus,
        start=_start(order, config, credentials, folder, digest),
        memory_fraction=order.gpus if 0 < order.gpus < 1 else None,
    )
    return _Material(run, dataset, data, ordinary, digest)


def _start(
    order: DriverOrder, config: TrainConfig, credentials: CallerCredentials, folder: Path, digest: str
) -> Adapter | None:
    """The adapter to go on from, if there is one."""
    if not config.pretrained_lora:
        return None
    registry = RegistryService(order.registry_target, credentials)
    try:
        with span("fetch adapter", adapter=config.pretrained_lora):
            return fetch(registry, config.pretrained_lora, folder, digest)
    finally:
        registry.close()


def _running(job: Job, order: DriverOrder, pid: int, node_id: str, clock: Clock) -> Job:
    ensure_current(job, order.attempt)
    if job.attempt is None or not job.dispatched:
        raise AttemptSuperseded(f"attempt {order.attempt} of {job.name} was ended before it began; it writes nothing")
    started = clock.now().isoformat(timespec="milliseconds")
    attempt = replace(job.attempt, worker_pid=pid, node_id=node_id, started=started)
    return replace(job, state=JobState.RUNNING, attempt=attempt)


def _base_folder(order: DriverOrder, base: str) -> Path:
    folder = order.base_sources.get(base)
    if folder is None or not Path(folder).is_dir():
        raise BaseUnreadable(
            f"bases/{base} has no folder on this worker ({folder}); set TERROIR_TRAINING_BASE_SOURCES and mount it"
        )
    return Path(folder)


def _check_base(order: DriverOrder, credentials: CallerCredentials, base: str, digest: str) -> None:
    registry = RegistryService(order.registry_target, credentials)
    try:
        registered = registry.base_digest(base)
    finally:
        registry.close()
    if registered != digest:
        raise BaseMismatch(
            f"the weights of bases/{base} here have the digest {digest[:12]}, the registry knows {registered[:12]}; "
            "mount the registered weights or register these under another id",
            metadata={"found": digest, "registered": registered},
        )
