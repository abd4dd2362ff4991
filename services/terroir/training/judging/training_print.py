"""The training print of a job: made once, and published with its version.

Attempts that repeat a publish must send the very same bytes, and a CLIP on another processor rounds otherwise, so the
first print that was made is the job's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from terroir.scoring.copies import print_of
from terroir.scoring.model_digest import model_digest
from terroir.scoring.training_print import TrainingPrintInvalid, ensure_room
from terroir.store.blobs import Blobs
from terroir.store.errors import AlreadyExists, NotFound
from terroir.store.interface import ObjectStore
from terroir.training.config import PublishGate
from terroir.training.judging.errors import JudgeModelMissing
from terroir.training.judging.models import judge_model
from terroir.training.judging.run import JudgedRun, computing_threads, trained_on

_KEY: Final = "training_print"


def kept_print(run: JudgedRun, store: ObjectStore, run_prefix: str, log: Callable[[str], None]) -> str:
    """Digest of the blob of the run's print; empty, with a line in the log, where there is none.

    There is none without a CLIP that knows the base, and of a set too large for one. A run that asked for no judgement
    is not lost for a CLIP that does not work either; raises what that one does where the run was judged with it.
    """
    key = f"{run_prefix}/{_KEY}"
    with suppress(NotFound):
        return store.get(key).decode()
    try:
        data = _made(run)
    except (JudgeModelMissing, TrainingPrintInvalid) as error:
        log(f"no training print: {error}")
        return ""
    except Exception as error:  # a folder that is no CLIP, memory that is full: of several libraries
        if run.config.publish_gate is not PublishGate.OFF:
            raise  # it was good enough to judge with a moment ago
        log(f"no training print: {type(error).__name__}: {error}")
        return ""
    with suppress(AlreadyExists):
        store.create(key, Blobs(store).put(data).encode())
    return store.get(key).decode()


def _made(run: JudgedRun) -> bytes:
    model = judge_model(run.base.digest, run.judge_model)
    ensure_room(len(run.data))  # before thousands of pictures are embedded and compared for nothing
    with computing_threads(run.threads):
        scorer = run.scorer(model, run.device)
        return print_of(scorer, trained_on(run.data).pictures, model_digest(model)).to_bytes()
