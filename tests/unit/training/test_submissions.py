"""What can be known to fail is refused before a job exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from attempt_kit import frozen
from training_kit import pictures

from terroir.common.clock import FixedClock
from terroir.common.errors import NotFound, PermissionDenied, TerroirError
from terroir.common.principal import Principal, Role
from terroir.store.obstore_driver import MemoryStore
from terroir.training.config.parser import parse_config
from terroir.training.jobs.admission import QueueAdmission
from terroir.training.jobs.documents import Job, Jobs
from terroir.training.jobs.queue_plan import QueueLimits
from terroir.training.jobs.submissions import Submissions
from terroir.training.scheduling.model import Capacity
from terroir.training.upstream import FrozenDataset

ANA = Principal("ana", frozenset({Role.STYLIST}))
SETS = {
    "ink": frozen("datasets/ink", pictures()),
    "plain": frozen("datasets/plain", pictures(2)),
    "stolen": frozen("datasets/stolen", pictures(), rights="  "),
    "empty": frozen("datasets/empty", []),
}


class Datasets:
    def version(self, name: str) -> FrozenDataset:
        found = SETS.get(name.split("/")[1])
        if found is None:
            raise NotFound(f"{name} does not exist", reason="DATASET_NOT_FOUND")
        return found


class Shelf:
    def base_digest(self, base: str) -> str:
        if base not in ("terroir-tiny", "sd15"):
            raise NotFound(f"bases/{base} does not exist", reason="BASE_NOT_FOUND")
        return "b" * 64

    def adapter_version(self, name: str) -> Any:
        raise NotFound(f"{name} does not exist", reason="ADAPTER_NOT_FOUND")


def create(text: str, over: Mapping[str, Any] = {}) -> Job:  # only read
    jobs = Jobs(MemoryStore(), FixedClock())
    return Submissions(jobs, Datasets(), Shelf(), ["terroir-tiny"]).create(text, "adapters/ink", "one", ANA, over=over)


def test_a_job_keeps_its_whole_configuration_with_exact_versions() -> None:
    job = create("dataset: datasets/ink\nreg_dataset: datasets/plain\nlora_rank: 4\n", {"lora_rank": 8})
    kept = parse_config(job.config_yaml).config
    assert (kept.dataset, kept.reg_dataset) == ("datasets/ink/versions/1", "datasets/plain/versions/1")
    assert (kept.lora_rank, kept.adapter, kept.base_model) == (8, "ink", "terroir-tiny")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("dataset: datasets/stolen\n", "RIGHTS_NOT_ATTESTED"),
        ("dataset: datasets/empty\n", "DATASET_EMPTY"),
        ("dataset: datasets/nothing\n", "DATASET_NOT_FOUND"),
        ("dataset: datasets/ink\nreg_dataset: datasets/stolen\n", "RIGHTS_NOT_ATTESTED"),
        ("dataset: datasets/ink\nreg_dataset: datasets/empty\n", "DATASET_EMPTY"),
        ("dataset: datasets/ink\nreg_dataset: plain\n", "INVALID_NAME"),
        ("dataset: datasets/ink\nreg_data_dir: plain\n", "DATASET_MISSING"),
        ("train_data_dir: pictures\n", "DATASET_MISSING"),
        ("dataset: datasets/ink\nbase_model: sd21\n", "BASE_NOT_FOUND"),
        ("dataset: datasets/ink\nbase_model: sd15\n", "BASE_NOT_MOUNTED"),
        ("dataset: datasets/ink\npretrained_lora: ink@production\n", "PRETRAINED_NOT_FOUND"),
        ("dataset: datasets/ink\nadapter: other\n", "ADAPTER_CONFLICT"),
    ],
)
def test_a_run_that_cannot_work_makes_no_job(text: str, reason: str) -> None:
    with pytest.raises(TerroirError) as refused:
        create(text)
    assert refused.value.reason == reason


def test_ordinary_pictures_of_a_region_that_is_not_the_caller_s_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETS, "plain", frozen("datasets/plain", pictures(2), region="CN-SH"))
    bound = Principal("ana", frozenset({Role.STYLIST}), ("CN-ZJ",))
    submissions = Submissions(Jobs(MemoryStore(), FixedClock()), Datasets(), Shelf(), ["terroir-tiny"])
    with pytest.raises(PermissionDenied):
        submissions.create("dataset: datasets/ink\nreg_dataset: datasets/plain\n", "adapters/ink", "one", bound)


@pytest.mark.parametrize(
    ("key", "reason"), [("team: tea", "NOT_OF_THE_TEAM"), ("priority: high", "HIGH_PRIORITY_DENIED")]
)
def test_what_is_for_others_to_ask_for_makes_no_job(key: str, reason: str) -> None:
    jobs = Jobs(MemoryStore(), FixedClock())
    admission = QueueAdmission(QueueLimits(Capacity(1)), {"tea": ["bob"]}, urgent=["bob"])
    submissions = Submissions(jobs, Datasets(), Shelf(), ["terroir-tiny"], admission)
    with pytest.raises(PermissionDenied) as refused:
        submissions.create(f"dataset: datasets/ink\n{key}\n", "adapters/ink", "one", ANA)
    assert refused.value.reason == reason and not jobs.ids()
    bob = Principal("bob", frozenset({Role.STYLIST}))
    assert submissions.create(f"dataset: datasets/ink\n{key}\n", "adapters/ink", "one", bob).creator == "bob"
