"""From a request for a sheet to the sheet: what is rated, which pictures, by whom."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from terroir.common.errors import InvalidArgument
from terroir.common.validation import ensure_name, ensure_range, ensure_text
from terroir.training.engine.ports import Picture
from terroir.training.jobs.documents import Jobs
from terroir.training.rating.errors import PicturesLacking
from terroir.training.rating.keeping import KeptDrawings
from terroir.training.rating.model import Drawn, Sheet
from terroir.training.rating.sheets import MOST_PICTURES, RealPicture, Sheets, Subject
from terroir.training.upstream import FrozenDataset

USUAL_COUNT: Final = 12
"""Pictures of either kind."""


class Datasets(Protocol):
    """What is asked of the dataset service."""

    def version(self, name: str) -> FrozenDataset:
        """A version by name; raises NotFound."""
        ...

    def pictures(self, dataset: FrozenDataset) -> Iterator[Picture]:
        """The version's pictures, in its order."""
        ...


class Origins(Protocol):
    """What is asked of the registry."""

    def origin(self, version: str) -> tuple[str, str]:
        """Job (`jobs/{id}`) and dataset version that a version was made of, empty if not known; raises NotFound."""
        ...


@dataclass(frozen=True)
class SheetRequest:
    """A sheet as somebody asks for it."""

    subject: str
    real_count: int = 0
    generated_count: int = 0
    request_id: str = ""


@dataclass(frozen=True)
class SheetMaking:
    """Makes sheets."""

    sheets: Sheets
    jobs: Jobs
    datasets: Datasets
    origins: Origins
    drawings: KeptDrawings
    sample: Callable[[Sequence[Any], int], list[Any]] = field(default=secrets.SystemRandom().sample)

    def make(self, request: SheetRequest, generated: Sequence[Drawn], creator: str) -> Sheet:
        """Make a sheet of pictures that came, or where none did of those that the job drew for it.

        Raises InvalidArgument (names, counts), NotFound (job, version, dataset), PicturesLacking, PictureUnusable.
        """
        operation = ensure_text(request.request_id, "header.request_id", 128) or str(uuid.uuid4())
        if (existing := self.sheets.existing(operation)) is not None:
            return existing
        subject = self.subject(request.subject)
        wanted = _count(request.generated_count, "header.generated_count")
        drawn = list(generated) or self.drawings.of(subject.job)
        if not drawn:
            raise PicturesLacking(
                f"no generated pictures came, and {subject.name} has none of its own (a job with rating_gate draws "
                "them once it is judged); draw some with the version that it published (terroir train rate sheet does)"
            )
        if len(drawn) < wanted:
            raise PicturesLacking(f"{len(drawn)} generated pictures came, {wanted} are asked for", field="header")
        real = self._real(subject, _count(request.real_count, "header.real_count"))
        return self.sheets.make(operation, subject, real, self.sample(drawn, wanted), creator)

    def subject(self, name: str) -> Subject:
        """A job or a version, and what it was trained on."""
        if name.startswith("jobs/"):
            job = self.jobs.get(ensure_name(name, "header.subject", "jobs/{job}")["job"])
            return Subject(name, job.id, job.dataset_version)
        ensure_name(name, "header.subject", "adapters/{adapter}/versions/{version}")
        job_name, dataset_version = self.origins.origin(name)
        if not dataset_version:
            raise PicturesLacking(
                f"{name} does not say which dataset it was trained on (it was uploaded), so there are no real pictures "
                "to put beside its own"
            )
        return Subject(name, job_name.removeprefix("jobs/"), dataset_version)

    def _real(self, subject: Subject, count: int) -> list[RealPicture]:
        dataset = self.datasets.version(subject.dataset_version)
        if len(dataset.pictures) < count:
            raise PicturesLacking(
                f"{dataset.name} has {len(dataset.pictures)} pictures, {count} are asked for; ask for fewer",
                field="header.real_count",
            )
        some = replace(dataset, pictures=tuple(self.sample(dataset.pictures, count)))
        return [
            RealPicture(one.name, one.data, hashlib.sha256(one.data).hexdigest())
            for one in self.datasets.pictures(some)
        ]


def _count(count: int, name: str) -> int:
    return int(ensure_range(count, name, 0, MOST_PICTURES)) or USUAL_COUNT


def ensure_drawn(data: bytes, prompt: str, seed: int) -> Drawn:
    """A generated picture of a request; raises InvalidArgument (PICTURE_TOO_LARGE, TEXT_TOO_LONG)."""
    if len(data) > 4 * 1024 * 1024:
        raise InvalidArgument(
            f"a picture of {len(data)} bytes exceeds 4 MiB; send it smaller",
            reason="PICTURE_TOO_LARGE",
            field="picture",
        )
    return Drawn(data, ensure_text(prompt, "picture.prompt", 2000), seed)
