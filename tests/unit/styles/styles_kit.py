"""Everything around registrations in memory: the store, the other services, Ray; and a fate that kills at any call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from terroir.common.clock import FixedClock
from terroir.common.errors import AlreadyExists, FailedPrecondition, NotFound
from terroir.common.principal import Principal, Role
from terroir.store.interface import ObjectStore
from terroir.store.obstore_driver import MemoryStore
from terroir.training.artifacts.pretrained import PublishedAdapter
from terroir.training.jobs.documents import Job, JobFailure, Jobs, JobState
from terroir.training.jobs.submissions import Submissions
from terroir.training.styles.admission import Admission, StyleRequest
from terroir.training.styles.errors import ImportSourceUnknown
from terroir.training.styles.model import Registration
from terroir.training.styles.ports import DatasetFacts, NewDataset, Progress, Usable
from terroir.training.styles.registrar import Registrar
from terroir.training.styles.registrations import Registrations
from terroir.training.styles.steps import Steps
from terroir.training.upstream import FrozenDataset

T = TypeVar("T")
ANA = Principal("oidc:https://login.example.com#ana", frozenset({Role.STYLIST}))
REQUEST = StyleRequest("ink", "regions/CN-ZJ", "lora_rank: 4\n", dataset="datasets/ink-pictures")
BASE_DIGEST = "b" * 64


class Killed(BaseException):
    """What kill -9 does to a process: nothing of it runs any more, not even its `finally`."""


@dataclass
class Fate:
    """Counts the calls of a process to the world, and kills it at one of them."""

    at: int = 0
    """The call at which it dies; 0: never."""
    after: bool = False
    """Whether the call had its effect."""
    calls: int = 0
    dead: bool = False

    def meet(self, call: Callable[[], T]) -> T:
        """Make a call, or die."""
        self.calls += 1
        if self.dead or (self.calls == self.at and not self.after):
            self.dead = True
            raise Killed
        number = self.calls
        try:
            return call()
        finally:
            if number == self.at:
                self.dead = True
                raise Killed


class Mortal:
    """Anything of the world, as a process with a fate reaches it."""

    def __init__(self, inner: Any, fate: Fate) -> None:
        self._inner, self._fate = inner, fate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return (lambda *args, **kwargs: self._fate.meet(lambda: found(*args, **kwargs))) if callable(found) else found


@dataclass
class MemoryDatasets:
    """The dataset service."""

    facts: dict[str, DatasetFacts] = field(default_factory=dict)
    kept_out: Mapping[str, int] = field(default_factory=dict)
    captioned: dict[str, int] = field(default_factory=dict)
    versions: dict[str, list[int]] = field(default_factory=dict)
    """Pictures of each frozen version, by dataset."""
    made_by: dict[str, str] = field(default_factory=dict)
    frozen_by: dict[str, str] = field(default_factory=dict)
    captioning: int = 0
    most_captioning: int = 0
    before_picture: Callable[[], None] = lambda: None

    def find(self, dataset_id: str) -> DatasetFacts | None:
        return self.facts.get(dataset_id)

    def create(self, dataset: NewDataset, request_id: str) -> None:
        if dataset.id in self.facts:
            if self.made_by.get(dataset.id) != request_id:
                raise AlreadyExists(f"datasets/{dataset.id} exists already", reason="DATASET_EXISTS")
            return
        self.made_by[dataset.id] = request_id
        self.facts[dataset.id] = DatasetFacts(dataset.id, dataset.region, dataset.rights_statement, 0)

    def import_folder(self, dataset_id: str, folder: Path, progress: Progress) -> None:
        names = sorted(path.name for path in folder.glob("*.png"))
        for done, _ in enumerate(names, start=1):
            facts = self.facts[dataset_id]
            self.facts[dataset_id] = replace(facts, pictures=max(facts.pictures, done))
            progress(done, len(names))

    def usable(self, dataset_id: str) -> Usable:
        count = self.facts[dataset_id].pictures
        out = sum(self.kept_out.values())
        return Usable(count - out, count, self.kept_out)

    def caption(self, dataset_id: str, progress: Progress) -> None:
        self.captioning += 1
        self.most_captioning = max(self.most_captioning, self.captioning)
        try:
            total = self.usable(dataset_id).count
            for done in range(self.captioned.get(dataset_id, 0) + 1, total + 1):
                self.before_picture()
                self.captioned[dataset_id] = max(done, self.captioned.get(dataset_id, 0))
                progress(done, total)
        finally:
            self.captioning -= 1

    def freeze(self, dataset_id: str, request_id: str) -> str:
        if self.captioned.get(dataset_id, 0) < self.usable(dataset_id).count:
            raise FailedPrecondition("pictures without a caption", reason="CAPTIONS_MISSING")
        if request_id not in self.frozen_by:
            frozen = self.versions.setdefault(dataset_id, [])
            if not frozen or frozen[-1] != self.usable(dataset_id).count:
                frozen.append(self.usable(dataset_id).count)
            self.frozen_by[request_id] = f"datasets/{dataset_id}/versions/{len(frozen)}"
        return self.frozen_by[request_id]

    def version(self, name: str) -> FrozenDataset:
        """What a submission asks."""
        facts = self.facts[name.split("/")[1]]
        pictures = tuple((f"{n:064x}", f"{n}.png", "a caption") for n in range(facts.pictures))
        return FrozenDataset(name, "d" * 64, "", facts.rights_statement, facts.region, pictures)


@dataclass
class MemoryShelf:
    """The registry."""

    tree: list[str] = field(default_factory=lambda: ["CN", "CN-ZJ", "CN-FJ"])
    adapters: dict[str, list[str]] = field(default_factory=dict)
    """Regions of each adapter's versions."""
    figures: Mapping[str, float] = field(default_factory=lambda: {"style_similarity": 0.7})
    aliases: dict[str, str] = field(default_factory=dict)
    moves: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """Alias, version and reason by request."""
    recipes: dict[str, str] = field(default_factory=dict)
    recipe_changes: int = 0

    def region(self, code: str) -> str | None:
        return next((known for known in self.tree if known.casefold() == code.casefold()), None)

    def regions(self) -> Sequence[str]:
        return self.tree

    def region_of_adapter(self, adapter: str) -> str | None:
        return self.adapters[adapter][-1] if self.adapters.get(adapter) else None

    def metrics(self, version: str) -> Mapping[str, float]:
        self._ensure_version(version)
        return self.figures

    def set_alias(self, adapter: str, alias: str, version: str, *, reason: str, request_id: str) -> None:
        self._ensure_version(version)
        if request_id not in self.moves:
            self.moves[request_id] = (f"{adapter}@{alias}", version, reason)
            self.aliases[f"{adapter}@{alias}"] = version

    def assign(self, region: str, adapter: str, request_id: str) -> None:
        if adapter not in self.aliases:
            raise NotFound(f"adapters/{adapter} has no such alias", reason="ALIAS_NOT_FOUND")
        if self.recipes.get(region) != adapter:
            self.recipes[region] = adapter
            self.recipe_changes += 1

    def _ensure_version(self, version: str) -> None:
        _, adapter, _, number = version.split("/")
        if len(self.adapters.get(adapter, [])) < int(number):
            raise NotFound(f"{version} does not exist", reason="VERSION_NOT_FOUND")

    def base_digest(self, base: str) -> str:
        """What a submission asks."""
        if base != "terroir-tiny":
            raise NotFound(f"bases/{base} does not exist", reason="BASE_NOT_FOUND")
        return BASE_DIGEST

    def adapter_version(self, name: str) -> PublishedAdapter:
        """What a submission asks."""
        raise NotFound(f"{name} does not exist", reason="ADAPTER_NOT_FOUND")


@dataclass
class MemorySources:
    """Import sources in folders."""

    folders: dict[str, Path] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self.folders)

    def ensure(self, source: str) -> None:
        if source not in self.folders:
            raise ImportSourceUnknown(f"importSources/{source} is not configured")

    @contextmanager
    def opened(self, source: str) -> Iterator[Path]:
        self.ensure(source)
        yield self.folders[source]


@dataclass
class Replica:
    """One process of the training service."""

    fate: Fate
    registrar: Registrar
    steps: Steps

    def run(self, registration: Registration) -> bool:
        """Advance until it waits or ends, as the registrar's thread would; whether it goes on."""
        return self.registrar.advance(registration.wish.style, registration.id)


@dataclass
class Room:
    """The world that survives processes."""

    store: ObjectStore = field(default_factory=MemoryStore)
    clock: FixedClock = field(default_factory=FixedClock)
    datasets: MemoryDatasets = field(default_factory=MemoryDatasets)
    shelf: MemoryShelf = field(default_factory=MemoryShelf)
    sources: MemorySources = field(default_factory=MemorySources)

    def __post_init__(self) -> None:
        self.datasets.facts["ink-pictures"] = DatasetFacts("ink-pictures", "CN-ZJ", "Ours.", 3)
        self.registrations = Registrations(self.store, self.clock)
        self.jobs = Jobs(self.store, self.clock)
        self.lock = threading.Lock()

    @property
    def admission(self) -> Admission:
        return Admission(self.registrations, self._submissions(self.jobs), self.datasets, self.shelf, self.sources)

    def replica(self, at: int = 0, *, after: bool = False) -> Replica:
        """A fresh process; it dies at a call if it is told to."""
        fate = Fate(at, after)
        store: Any = Mortal(self.store, fate)
        datasets: Any = Mortal(self.datasets, fate)
        shelf: Any = Mortal(self.shelf, fate)
        jobs = Jobs(store, self.clock)
        steps = Steps(
            datasets, shelf, self.sources, self._submissions(jobs), jobs, lambda _: None, self.clock
        )  # fmt: skip
        registrar = Registrar(store, Registrations(store, self.clock), steps, jobs, self.clock)
        return Replica(fate, registrar, steps)

    def begin(self, request: StyleRequest = REQUEST, request_id: str = "one") -> Registration:
        return self.admission.register(request, request_id, ANA)

    def seen(self, registration: Registration) -> Registration:
        return self.registrations.get(registration.wish.style, registration.id)

    def work(self, state: JobState = JobState.SUCCEEDED) -> list[Job]:
        """Ray ends every job that has not ended; a good one publishes."""
        ended = []
        for job in map(self.jobs.get, self.jobs.ids()):
            if job.ended:
                continue
            version, failure = "", None
            if job.cancel_requested:
                state = JobState.CANCELLED
            if state is JobState.SUCCEEDED:
                region = self.datasets.facts[job.dataset_version.split("/")[1]].region
                self.shelf.adapters.setdefault(job.adapter, []).append(region)
                version = f"adapters/{job.adapter}/versions/{len(self.shelf.adapters[job.adapter])}"
            elif state is JobState.FAILED:
                failure = JobFailure("NON_FINITE_LOSS", "the loss was not finite; lower learning_rate")
            ended.append(self.jobs.end(job.id, "end/1", state, adapter_version=version, failure=failure))
        return ended

    def finish(self, registration: Registration) -> Registration:
        """What fresh processes and Ray make of it in the end."""
        for _ in range(6):
            self.clock.advance(30)
            if not self.replica().run(registration):
                break
            self.work()
        return self.seen(registration)

    def _submissions(self, jobs: Jobs) -> Submissions:
        return Submissions(jobs, self.datasets, self.shelf, ["terroir-tiny"], judge_model="/models/clip")
