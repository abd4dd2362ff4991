"""MinIO goes in the middle of an attempt and comes back: the attempt waits, and its result is the same.

`TERROIR_SOAK_OUTAGE_SECONDS` says for how long; `make soak` has it away for 30 s.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from terroir.store.blobs import Blobs
from terroir.store.patient import PatientStore
from terroir.store.s3 import S3Store
from terroir.training.artifacts.checkpoints import Checkpoints
from terroir.training.attempt.worker import JobSinks
from tests.tools.minio_server import MinioServer
from tests.unit.training.attempt_kit import AttemptBench
from tests.unit.training.small_bases import small_sd

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("TERROIR_SOAK_OUTAGE_SECONDS", "2"))
KEYS = {"max_train_steps": 6, "save_steps": 2}


def test_an_attempt_waits_for_a_store_that_goes_and_comes_back(
    own_minio: MinioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = small_sd(tmp_path / "base")
    whole = AttemptBench(base, monkeypatch).run(**KEYS)
    location = replace(own_minio.location(), retry_seconds=0.3, timeout_seconds=5.0, silence_seconds=1.0)
    store = PatientStore(S3Store(location))
    away = threading.Timer(SECONDS, own_minio.start)
    gone_at: list[float] = []
    save = JobSinks.save

    def save_while_it_goes(self: JobSinks, checkpoint: object) -> None:
        if not gone_at:
            own_minio.kill()
            gone_at.append(time.monotonic())
            away.start()
        save(self, checkpoint)  # type: ignore[arg-type]

    monkeypatch.setattr(JobSinks, "save", save_while_it_goes)
    bench = AttemptBench(base, monkeypatch, store=store)
    trained = bench.run(**KEYS)
    away.join()
    assert time.monotonic() - gone_at[0] >= SECONDS
    assert trained.file_digest == whole.file_digest and Blobs(store).get(trained.file_digest)
    saved = Checkpoints(store, f"jobs/{bench.job_id}", bench.clock).listed()
    assert [checkpoint.step for checkpoint in saved] == [6, 4, 2]
