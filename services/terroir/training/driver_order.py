"""What goes between service, driver and worker as plain values; everything else they read from the job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class DriverOrder:
    """One attempt at one job. Holds no secrets, as Ray shows command lines: a store's keys come by the environment."""

    job_id: str
    attempt: int
    submission_id: str
    data_dir: str
    store: str
    store_endpoint: str
    store_region: str
    dataset_target: str
    registry_target: str
    base_sources: Mapping[str, str]
    cpus: int
    gpus: float

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> DriverOrder:
        """The inverse of `to_json`."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Trained:
    """What the worker hands to the driver."""

    file_digest: str
    """Blob of the kohya file."""
    base_digest: str
    dataset_version: str
    dataset_digest: str
    trigger_word: str
    region: str
    steps: int
    loss: float
