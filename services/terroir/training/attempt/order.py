"""What goes between service, driver and worker as plain values; everything else they read from the job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

_MAY_LACK: Final = ("otlp_endpoint", "traceparent", "avoid_nodes", "judge_model")
"""Left out where empty: images of drivers that are older than the service know them not."""


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
    otlp_endpoint: str = ""
    """Collector of the service, for machines whose settings name none; empty: no traces."""
    traceparent: str = ""
    """The span that the attempt goes on from, as W3C Trace Context writes it; empty: no trace."""
    avoid_nodes: tuple[str, ...] = ()
    """Ray nodes that attempts before were lost on: others are better, if there are any."""
    judge_model: str = ""
    """Folder on the workers of the CLIP that judges; empty: the embedded one, for the embedded base alone."""

    def to_json(self) -> str:
        """One line."""
        told = asdict(self)
        return json.dumps({name: told[name] for name in told if told[name] or name not in _MAY_LACK}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> DriverOrder:
        """The inverse of `to_json`."""
        told = json.loads(text)
        return cls(**{**told, "avoid_nodes": tuple(told.get("avoid_nodes", ()))})


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
    """Of the checkpoint that is published."""
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Figures of the judgement and of raters, by name."""
    training_print_digest: str = ""
    """Blob of the training print; empty where none was made."""
