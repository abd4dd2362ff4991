"""One attempt of the service's worker in this process: the real engine, over the other services in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from terroir.common.base_digest import base_digest, component_digests
from terroir.common.clock import FixedClock
from terroir.common.credentials import CallerCredentials
from terroir.common.errors import NotFound
from terroir.store.interface import ObjectStore
from terroir.store.obstore_driver import MemoryStore
from terroir.training.attempt import worker
from terroir.training.attempt.files import LogReader
from terroir.training.attempt.order import DriverOrder, Trained
from terroir.training.config import TrainConfig
from terroir.training.config.parser import dump_config
from terroir.training.engine.ports import Picture
from terroir.training.jobs.documents import Attempt, Jobs, attempt_prefix
from terroir.training.upstream import FrozenDataset
from tests.unit.training.training_kit import SMALL, pictures


def frozen(name: str, data: Sequence[Picture], *, rights: str = "ours", region: str = "") -> FrozenDataset:
    """A version as the dataset service tells it."""
    rows = tuple((f"{number:064x}", picture.name, picture.caption) for number, picture in enumerate(data))
    return FrozenDataset(f"{name}/versions/1", "d" * 64, "", rights, region, rows)


@dataclass
class FrozenSets:
    """The dataset service: a version of each named set."""

    sets: Mapping[str, Sequence[Picture]]

    def version(self, name: str) -> FrozenDataset:
        known = name.partition("/versions/")[0]
        if known not in self.sets:
            raise NotFound(f"{name} does not exist", reason="DATASET_NOT_FOUND")
        return frozen(known, self.sets[known])

    def pictures(self, dataset: FrozenDataset) -> Iterator[Picture]:
        return iter(self.sets[dataset.name.partition("/versions/")[0]])

    def close(self) -> None:
        pass


@dataclass
class OneBase:
    """The registry: it knows the base by the digest of a folder."""

    folder: Path

    def base_digest(self, base: str) -> str:
        return base_digest(component_digests(self.folder))

    def close(self) -> None:
        pass


@dataclass
class AttemptBench:
    """Runs attempts at one job."""

    base: Path
    monkeypatch: pytest.MonkeyPatch
    store: ObjectStore = field(default_factory=MemoryStore)
    sets: dict[str, Sequence[Picture]] = field(default_factory=lambda: {"datasets/ink": pictures()})
    clock: FixedClock = field(default_factory=FixedClock)
    judge_model: str = ""
    gpus: float = 0.0
    keys: Mapping[str, Any] = field(default_factory=dict)
    """Of every run."""
    lines: list[str] = field(default_factory=list)
    """The log of the last attempt."""
    job_id: str = ""

    def run(self, **keys: Any) -> Trained:
        """The next attempt, from its start to the adapter file in the store."""
        config = TrainConfig(**{**SMALL, "dataset": "datasets/ink/versions/1", **self.keys, **keys})
        jobs = Jobs(self.store, self.clock)
        job = jobs.create(
            "one",
            adapter="ink",
            base="tiny",
            dataset_version="datasets/ink/versions/1",
            config_yaml=dump_config(config),
        )
        self.job_id = job.id
        attempt = Attempt(1 + (job.attempt.number if job.attempt else 0), "submission", "ray")
        jobs.change(job.id, f"dispatch/{attempt.number}", lambda job: replace(job, dispatched=True, attempt=attempt))
        order = DriverOrder(
            job_id=job.id, attempt=attempt.number, submission_id=attempt.submission_id, data_dir="/data", store="",
            store_endpoint="", store_region="", dataset_target="d", registry_target="r",
            base_sources={"tiny": str(self.base)}, cpus=1, gpus=self.gpus, judge_model=self.judge_model,
        )  # fmt: skip
        self.monkeypatch.setattr(worker, "DatasetService", lambda *_: FrozenSets(self.sets))
        self.monkeypatch.setattr(worker, "RegistryService", lambda *_: OneBase(self.base))
        try:
            return worker.train_attempt(order, self.store, CallerCredentials(), lambda: "node", self.clock)
        finally:
            self.lines = [
                line
                for lines in LogReader(self.store, attempt_prefix(job.id, attempt.number)).new_pieces()
                for line in lines
            ]
