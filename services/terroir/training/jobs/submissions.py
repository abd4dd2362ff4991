"""Accepting a run: everything that can be known to fail is checked before the job exists."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from terroir.common.errors import InvalidArgument
from terroir.common.principal import Principal
from terroir.common.tracing import current_traceparent
from terroir.common.validation import ensure_identifier, ensure_name, ensure_text
from terroir.training.artifacts.pretrained import Versions, resolve
from terroir.training.config import TrainConfig
from terroir.training.config.parser import ParsedConfig, dump_config, parse_config
from terroir.training.errors import BaseUnreadable, ConfigInvalid, NothingToTrain, RightsNotAttested
from terroir.training.jobs.admission import QueueAdmission
from terroir.training.jobs.documents import Job, Jobs
from terroir.training.judging.models import ensure_judgeable
from terroir.training.scheduling.wishes import wish_of
from terroir.training.upstream import FrozenDataset


class Datasets(Protocol):
    """What is asked of the dataset service."""

    def version(self, name: str) -> FrozenDataset:
        """A version by name, or a dataset's newest; raises NotFound."""
        ...


class Bases(Versions, Protocol):
    """What is asked of the registry."""

    def base_digest(self, base: str) -> str:
        """Digest of a registered base; raises NotFound."""
        ...


@dataclass(frozen=True)
class Submissions:
    """Turns requests into queued jobs."""

    jobs: Jobs
    datasets: Datasets
    bases: Bases
    mounted_bases: Collection[str]
    """Bases that the workers have a folder for."""
    admission: QueueAdmission | None = None
    """What the queue could ever give; None: everything."""
    judge_model: str = ""
    """Folder of the CLIP that judges; empty: the embedded one."""

    def validate(self, config_yaml: str, over: Mapping[str, Any] = MappingProxyType({})) -> ParsedConfig:
        """The configuration with every default, and warnings; keys of `over` overrule.

        Raises ConfigInvalid, and DemandImpossible for what the queue could never give.
        """
        parsed = parse_config(config_yaml, over)
        _for_service(parsed.config)
        self._ensure_possible(parsed.config)
        return parsed

    def create(
        self, config_yaml: str, adapter: str, request_id: str, principal: Principal, traceparent: str = "", *,
        over: Mapping[str, Any] = MappingProxyType({}),
    ) -> Job:  # fmt: skip
        """Queue a job, once for one `request_id`; it goes on from the span of `traceparent`, or of the call.

        Keys of `over` overrule those of the YAML.

        Raises as `resolved` does, and NotFound (dataset), RightsNotAttested, NothingToTrain, PermissionDenied (a
        dataset of a region, a team or a class of urgency that the principal is not for), OperationConflict (the
        request_id made another job).
        """
        config = self.validate(config_yaml, over).config
        self.ensure_allowed(config, principal)
        resolved = self.resolved(config, adapter)
        dataset = self._trainable(config.dataset)
        principal.require_region(dataset.region, f"train on {dataset.name}")
        resolved = resolved.model_copy(update={"dataset": dataset.name, **self._ordinary(config, principal)})
        return self.jobs.create(
            ensure_text(request_id, "request_id", 128) or str(uuid.uuid4()),
            adapter=resolved.adapter,
            base=resolved.base_model,
            dataset_version=dataset.name,
            config_yaml=dump_config(resolved),
            creator=principal.name,
            traceparent=traceparent or current_traceparent(),
            wish=wish_of(resolved),
        )

    def resolved(self, config: TrainConfig, adapter: str) -> TrainConfig:
        """The configuration with exact names of base, adapter and the version to go on from; the dataset stays.

        Raises ConfigInvalid, DemandImpossible, InvalidArgument (names), NotFound (base, adapter to go on from),
        BaseUnreadable, JudgeModelMissing, PretrainedMismatch and PretrainedUnusable.
        """
        self._ensure_possible(config)
        base = ensure_identifier(config.base_model.removeprefix("bases/"), "base_model")
        target = _adapter(config, adapter)
        digest = self.bases.base_digest(base)
        if base not in self.mounted_bases:
            raise BaseUnreadable(
                f"bases/{base} is registered, but no worker has its weights; mounted are "
                f"{', '.join(sorted(self.mounted_bases))} (set TERROIR_TRAINING_BASE_SOURCES)",
                reason="BASE_NOT_MOUNTED",
            )
        ensure_judgeable(config, digest, self.judge_model)
        start = resolve(self.bases, config, base, digest)
        return config.model_copy(update={"adapter": target, "base_model": base, "pretrained_lora": start})

    def _ordinary(self, config: TrainConfig, principal: Principal) -> dict[str, str]:
        """The exact version of the regularisation pictures, if there are any."""
        if not config.reg_dataset:
            return {}
        dataset = self._trainable(config.reg_dataset)
        principal.require_region(dataset.region, f"train on {dataset.name}")
        return {"reg_dataset": dataset.name}

    def ensure_allowed(self, config: TrainConfig, principal: Principal) -> None:
        """Raise PermissionDenied for a team or a class that others alone may submit for."""
        if self.admission is not None:
            self.admission.ensure_allowed(wish_of(config), principal)

    def _ensure_possible(self, config: TrainConfig) -> None:
        if self.admission is not None:
            self.admission.ensure_possible(wish_of(config))

    def _trainable(self, name: str) -> FrozenDataset:
        dataset = self.datasets.version(name)
        if not dataset.rights_statement.strip():
            raise RightsNotAttested(
                f"{dataset.name} has no rights statement; say that you hold the rights to train on it "
                "(rights_statement of the dataset) and freeze a new version",
                metadata={"dataset_version": dataset.name},
            )
        if not dataset.pictures:
            raise NothingToTrain(
                f"{dataset.name} has no picture that passed its gates; import some and freeze a new version"
            )
        return dataset


def _for_service(config: TrainConfig) -> None:
    if not config.dataset:
        local = (
            "train_data_dir is a folder of your machine, which the service does not see; "
            if config.train_data_dir
            else ""
        )
        raise ConfigInvalid(
            f"{local}import the pictures and set `dataset: datasets/ID/versions/N`",
            reason="DATASET_MISSING",
            field="dataset",
        )
    if config.reg_data_dir and not config.reg_dataset:
        raise ConfigInvalid(
            "reg_data_dir is a folder of your machine, which the service does not see; import the pictures and set "
            "`reg_dataset: datasets/ID/versions/N`",
            reason="DATASET_MISSING",
            field="reg_dataset",
        )
    for key, name in (("dataset", config.dataset), ("reg_dataset", config.reg_dataset)):
        if name:
            pattern = "datasets/{dataset}/versions/{version}" if "/versions/" in name else "datasets/{dataset}"
            ensure_name(name, key, pattern)


def _adapter(config: TrainConfig, requested: str) -> str:
    given = ensure_name(requested, "adapter", "adapters/{adapter}")["adapter"] if requested else config.adapter
    if not given:
        raise InvalidArgument(
            "no adapter to receive the result: set adapter to `adapters/ID`", reason="ADAPTER_MISSING", field="adapter"
        )
    if config.adapter and config.adapter != given:
        raise InvalidArgument(
            f"the request names adapters/{given}, the configuration {config.adapter!r}; make them equal",
            reason="ADAPTER_CONFLICT",
            field="adapter",
        )
    return given
