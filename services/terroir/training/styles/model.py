"""A registration: what was asked for, and how far it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final


class Phase(StrEnum):
    """What a registration does, in this order."""

    IMPORTING = "importing"
    CAPTIONING = "captioning"
    FREEZING = "freezing"
    QUEUED = "queued"
    TRAINING = "training"
    JUDGING = "judging"
    PUBLISHING = "publishing"
    STAGING = "staging"


PHASES: Final = tuple(Phase)
OF_THE_JOB: Final = (Phase.QUEUED, Phase.TRAINING, Phase.JUDGING, Phase.PUBLISHING)
"""Phases in which the registration follows its job."""


class State(StrEnum):
    """Where a registration stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Wish:
    """What somebody asked for, checked, with exact names."""

    style: str
    """Identifier of the style and of its adapter."""
    region: str
    """Code of the region, as the region tree spells it."""
    dataset: str
    """Identifier of the dataset."""
    config_yaml: str
    """Every key filled in but `dataset`, which is known once the pictures are frozen."""
    creator: str
    """Name of the principal."""
    import_source: str = ""
    """Identifier of the source; empty if the pictures are in the dataset already."""
    rights_statement: str = ""
    trigger_word: str = ""
    license: str = ""
    assign_region: bool = False
    traceparent: str = ""
    """The span of the call, as W3C Trace Context writes it; empty: no trace."""


@dataclass(frozen=True)
class PhaseBegin:
    """When a phase began."""

    phase: Phase
    time: str
    """RFC 3339, UTC."""


@dataclass(frozen=True)
class Failure:
    """Why a registration failed."""

    reason: str
    message: str


@dataclass(frozen=True)
class Registration:
    """A registration as its newest document has it; `etag` comes from the store."""

    id: str
    wish: Wish
    created_at: str
    """RFC 3339, UTC."""
    phases: tuple[PhaseBegin, ...]
    """The last is the one that goes on, or in which it ended."""
    state: State = State.RUNNING
    dataset_version: str = ""
    """`datasets/{id}/versions/{number}`, once frozen."""
    job: str = ""
    """Identifier of the training job, once there is one."""
    adapter_version: str = ""
    """`adapters/{id}/versions/{number}`, once published."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Figures that the published version carries."""
    cancel_requested: bool = False
    failure: Failure | None = None
    ended_at: str = ""
    etag: str = ""

    @property
    def name(self) -> str:
        """`styles/{style}/registrations/{id}`."""
        return registration_name(self.wish.style, self.id)

    @property
    def phase(self) -> Phase:
        """What it does, or in which phase it ended."""
        return self.phases[-1].phase

    @property
    def ended(self) -> bool:
        """Whether nothing will happen any more."""
        return self.state is not State.RUNNING


def registration_name(style: str, registration_id: str) -> str:
    """`styles/{style}/registrations/{id}`."""
    return f"styles/{style}/registrations/{registration_id}"


def registration_id_of(style: str, request_id: str) -> str:
    """The identifier of the registration that a request makes."""
    return f"r-{hashlib.sha256(f'{style}/{request_id}'.encode()).hexdigest()[:16]}"


def body_of(registration: Registration) -> dict[str, Any]:
    """As a document's body."""
    body = asdict(registration)
    del body["etag"]
    return body


def registration_of(body: Mapping[str, Any], etag: str) -> Registration:
    """The inverse of `body_of`."""
    failure = body["failure"]
    fields = dict(body) | {
        "wish": Wish(**body["wish"]),
        "phases": tuple(PhaseBegin(Phase(begun["phase"]), begun["time"]) for begun in body["phases"]),
        "state": State(body["state"]),
        "failure": Failure(**failure) if failure else None,
    }
    return Registration(**fields, etag=etag)
