"""Moves registrations along: looks at every one that has not ended, and does its next step.

All state is in the object store. A service that is killed goes on where it stopped: what a step did and did not write
down is done again, and changes nothing. Several replicas may look at one registration; long steps are leased.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from terroir.common.clock import Clock
from terroir.common.errors import Aborted, Cancelled, DeadlineExceeded, ResourceExhausted, TerroirError, Unavailable
from terroir.store.errors import StoreError, StoreUnavailable
from terroir.store.interface import ObjectStore
from terroir.store.leases import Leases
from terroir.training.jobs.documents import Job, Jobs
from terroir.training.styles.errors import RegistrationNotFound
from terroir.training.styles.live import Live, write_live
from terroir.training.styles.model import Failure, Phase, Registration, State
from terroir.training.styles.registrations import Registrations
from terroir.training.styles.steps import JobFailed, Steps, Went
from terroir.training.ticking import Ticking

_log = structlog.get_logger(__name__)
_RELIST_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 1.0
"""Between two looks at one registration that waits; longer where there are many."""
_LOOKS_A_SECOND: Final = 20.0
_ANNOUNCED_SECONDS: Final = 30.0
_LIVE_SECONDS: Final = 0.5
_WORKERS: Final = 8
_LONG_AT_ONCE: Final = 4
"""Long steps; the other workers look after jobs meanwhile."""
_LONG: Final = frozenset({Phase.IMPORTING, Phase.CAPTIONING})
_PASSING: Final = (Unavailable, Aborted, Cancelled, DeadlineExceeded, ResourceExhausted)
"""Errors after which the same step may well work a little later."""


class _StopError(Exception):
    """The step shall end: somebody asked for the registration's end, or the service stops."""


class Registrar:
    """`tick` begins what is due in threads; `advance` does one registration's steps until it waits or has ended."""

    def __init__(
        self, store: ObjectStore, registrations: Registrations, steps: Steps, jobs: Jobs, clock: Clock
    ) -> None:
        self._store = store
        self._registrations = registrations
        self._steps = steps
        self._jobs = jobs
        self._clock = clock
        self._leases = Leases(store, clock)
        self._long = threading.Semaphore(_LONG_AT_ONCE)
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="registrar")
        self._lock = threading.Lock()
        self._due: dict[tuple[str, str], float] = {}
        """When to look next, by style and identifier; those that are being looked at are not here."""
        self._waiting: set[str] = set()
        """Names of those that last met an error that passes."""
        self._read_up_to = 0
        self._listed = float("-inf")
        self._loop = Ticking("registrar", self.tick)

    def added(self, registration: Registration) -> None:
        """A registration may have something to do: look at it now."""
        with self._lock:
            self._due[registration.wish.style, registration.id] = float("-inf")
        self._loop.wake()

    def run(self) -> None:
        """Tick until `stop`."""
        self._loop.run()

    def stop(self) -> None:
        """Let `run` return, and steps end at their next picture; what they did is kept."""
        self._loop.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def tick(self) -> None:
        """Begin to look at every registration that is due."""
        self._relist()
        now = self._clock.monotonic()
        with self._lock:
            due = [key for key, at in self._due.items() if at <= now]
            for key in due:
                del self._due[key]
        for style, registration_id in due:
            self._pool.submit(self._look, style, registration_id)

    def advance(self, style: str, registration_id: str) -> bool:
        """Do steps until the registration waits (true) or has ended (false); raises RegistrationNotFound."""
        registration = self._registrations.get(style, registration_id)
        while not registration.ended:
            before = registration
            registration = self._step(registration)
            if registration == before:
                return True
        if registration.state is State.CANCELLED:
            self._end_job(registration)  # which another replica may have made while this one ended the registration
        return False

    def _relist(self) -> None:
        if self._clock.monotonic() - self._listed < _RELIST_SECONDS:
            return
        for line in self._registrations.logged(self._read_up_to):
            with self._lock:
                self._due.setdefault((line.style, line.id), float("-inf"))
            self._read_up_to = line.number
        self._listed = self._clock.monotonic()

    def _look(self, style: str, registration_id: str) -> None:
        goes_on, pause = True, max(_LOOK_SECONDS, len(self._due) / _LOOKS_A_SECOND)
        try:
            goes_on = self.advance(style, registration_id)
        except RegistrationNotFound:  # announced: its writer has not come to write it yet, or never will
            pause = _ANNOUNCED_SECONDS
        except (TerroirError, StoreError) as error:
            _log.warning("registration_waits", style=style, reason=error.reason, error=str(error))
        except Exception:
            _log.exception("registrar_failed", style=style)
        if goes_on:
            with self._lock:
                self._due.setdefault((style, registration_id), self._clock.monotonic() + pause)

    def _step(self, registration: Registration) -> Registration:
        # In its last phase the alias may be set already, so that it ends as it would have.
        stops = registration.cancel_requested and registration.phase is not Phase.STAGING
        if stops and (ended := self._cancelled(registration)) is not None:
            return ended
        try:
            went = self._take(registration)
        except _StopError:
            return self._registrations.get(registration.wish.style, registration.id)
        except _PASSING as error:
            return self._waits(registration, error.reason, str(error))
        except StoreUnavailable as error:
            return self._waits(registration, error.reason, str(error))
        except (TerroirError, StoreError, JobFailed) as error:
            return self._failed(registration, error.reason, str(error))
        except Exception as error:
            _log.exception("registration_step_failed", registration=registration.name, phase=registration.phase)
            return self._failed(registration, "REGISTRATION_FAILED", f"{type(error).__name__}: {error}")
        self._works_again(registration)
        return self._write(registration, went)

    def _take(self, registration: Registration) -> Went:
        if registration.phase not in _LONG:
            return self._steps.take(registration, lambda _done, _total: None)
        if not self._long.acquire(blocking=False):
            return Went()
        try:
            key = f"styles/{registration.wish.style}/leases/{registration.id}/{registration.phase}"
            with self._leases.held(key) as mine:
                return self._steps.take(registration, self._hearing(registration)) if mine else Went()
        finally:
            self._long.release()

    def _hearing(self, registration: Registration) -> Callable[[int, int], None]:
        """Tells watchers now and then, and ends the step where nobody wants it any more."""
        told = float("-inf")

        def progress(done: int, total: int) -> None:
            nonlocal told
            if self._loop.stopping:
                raise _StopError
            if self._clock.monotonic() - told >= _LIVE_SECONDS or done == total:
                told = self._clock.monotonic()
                write_live(self._store, registration, Live(done, total))
                if self._registrations.get(registration.wish.style, registration.id).cancel_requested:
                    raise _StopError

        return progress

    def _write(self, registration: Registration, went: Went) -> Registration:
        if went.end is not None:
            _log.info("registration_ended", registration=registration.name, state=went.end)
            return self._registrations.end(registration, went.end, **dict(went.facts))
        if went.phase is None:
            return registration
        _log.info("registration_enters", registration=registration.name, phase=went.phase)
        return self._registrations.enter(registration, went.phase, **dict(went.facts))

    def _cancelled(self, registration: Registration) -> Registration | None:
        """Its end, once its job has ended too; None while the job has to end first."""
        job = self._end_job(registration)
        if job is not None and not job.ended:
            return None
        version = job.adapter_version if job is not None else ""
        return self._registrations.end(registration, State.CANCELLED, adapter_version=version)

    def _end_job(self, registration: Registration) -> Job | None:
        """The job, if there is one, asked to stop."""
        job = self._steps.made_job(registration)
        if job is None or job.ended:
            return job
        asked = self._jobs.request_cancel(job.id)
        self._steps.job_added(job.id)
        return asked

    def _waits(self, registration: Registration, reason: str, message: str) -> Registration:
        _log.info("registration_waits", registration=registration.name, phase=registration.phase, reason=reason)
        self._waiting.add(registration.name)
        write_live(self._store, registration, Live(waiting_for=f"{message} [{reason}]"))
        return registration

    def _works_again(self, registration: Registration) -> None:
        if registration.name in self._waiting:
            write_live(self._store, registration, Live())
            self._waiting.discard(registration.name)

    def _failed(self, registration: Registration, reason: str, message: str) -> Registration:
        _log.info("registration_failed", registration=registration.name, phase=registration.phase, reason=reason)
        told = f"{registration.phase}: {message} ({_kept(registration)})"
        return self._registrations.end(registration, State.FAILED, failure=Failure(reason, told))


def _kept(registration: Registration) -> str:
    """What a failed registration leaves, and how to go on from it."""
    if registration.adapter_version:
        style, number = registration.wish.style, registration.adapter_version.rpartition("/")[2]
        return (
            f"{registration.adapter_version} is published; once that is mended: "
            f"terroir adapter alias {style} staging {number} --reason WHY"
        )
    return "imported pictures and captions stay; once that is mended, register the style again"
