"""Sheets in the object store: the first document holds pictures and their key, every later one a person's answers."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from terroir.common.clock import Clock
from terroir.common.validation import ensure_text
from terroir.store.blobs import Blobs
from terroir.store.documents import MUST_NOT_EXIST, Collection
from terroir.store.errors import EtagMismatch
from terroir.store.interface import ObjectStore
from terroir.training.rating.errors import AnswersInvalid, PicturesLacking, SheetNotFound
from terroir.training.rating.model import (
    Answer,
    Drawn,
    Item,
    Kind,
    Sheet,
    Submission,
    sheet_body,
    sheet_id_of,
    sheet_of,
    submission_body,
)
from terroir.training.rating.pictures import alike, opened, side_for

PREFIX: Final = "ratings"
MOST_PICTURES: Final = 100
"""Of either kind."""
_NAMED_ERRORS: Final = 5
_RANDOM: Final = secrets.SystemRandom()


@dataclass(frozen=True)
class RealPicture:
    """A picture that the adapter was trained on."""

    name: str
    data: bytes
    digest: str


@dataclass(frozen=True)
class Subject:
    """What is rated."""

    name: str
    """`jobs/{id}` or `adapters/{id}/versions/{number}`."""
    job: str
    """Identifier of the job that trained it; empty if it is not known."""
    dataset_version: str


class Sheets:
    """Makes sheets and takes answers; safe for threads and replicas."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        shuffle: Callable[[list[Any]], None] = _RANDOM.shuffle,
    ) -> None:
        """`shuffle` brings a sheet's pictures into an order that nobody can compute again."""
        self._blobs = Blobs(store)
        self._clock = clock
        self._shuffle = shuffle
        self._sequences = Collection(store, PREFIX, clock)

    def existing(self, request_id: str) -> Sheet | None:
        """What the same request made before."""
        try:
            return self.get(sheet_id_of(request_id))
        except SheetNotFound:
            return None

    def make(
        self, request_id: str, subject: Subject, real: Sequence[RealPicture], generated: Sequence[Drawn], creator: str
    ) -> Sheet:
        """Make all pictures alike, shuffle them, keep the key; once for one `request_id`.

        Raises PicturesLacking and PictureUnusable.
        """
        for kind, count in (("real", len(real)), ("generated", len(generated))):
            if not 1 <= count <= MOST_PICTURES:
                raise PicturesLacking(f"{count} {kind} pictures; a sheet needs 1 to {MOST_PICTURES} of each kind")
        pictures = [opened(one.data, one.name) for one in real]
        pictures += [opened(one.data, f"generated picture {at}") for at, one in enumerate(generated, start=1)]
        side = side_for(pictures)
        origins = [(Kind.REAL, one.digest) for one in real]
        origins += [(Kind.GENERATED, f"{one.prompt}#{one.seed}") for one in generated]
        shown = list(zip(alike(pictures, side), origins, strict=True))
        self._shuffle(shown)
        width = max(2, len(str(len(shown))))
        sheet = Sheet(
            id=sheet_id_of(request_id),
            subject=subject.name,
            job=subject.job,
            dataset_version=subject.dataset_version,
            side=side,
            creator=creator,
            created_at=self._now(),
            items=tuple(
                Item(f"p{number:0{width}d}", self._blobs.put(data), kind, source)
                for number, (data, (kind, source)) in enumerate(shown, start=1)
            ),
        )
        with suppress(EtagMismatch):  # the same request, faster on another replica: its order counts
            self._sequences.sequence(sheet.id).append(
                sheet_body(sheet), op_id=f"make/{uuid.uuid4()}", expected_etag=MUST_NOT_EXIST
            )
        return self.get(sheet.id)

    def get(self, sheet_id: str) -> Sheet:
        """One sheet; raises SheetNotFound."""
        history = list(self._sequences.sequence(sheet_id).history())
        if not history:
            raise SheetNotFound(f"ratingSheets/{sheet_id} does not exist (list them: terroir train rate list)")
        return sheet_of(history[0].body, [document.body for document in history[1:]], history[-1].etag)

    def listed(self) -> list[Sheet]:
        """All, newest first."""
        sheets = [self.get(sheet_id) for sheet_id in self._sequences.ids()]
        return sorted(sheets, key=lambda sheet: (sheet.created_at, sheet.id), reverse=True)

    def picture(self, item: Item) -> bytes:
        """The PNG that raters see."""
        return self._blobs.get(item.blob)

    def submit(
        self, sheet_id: str, rater: str, answers: Mapping[str, Answer], submitted_by: str, request_id: str
    ) -> Sheet:
        """Keep a person's answers, which replace earlier ones of the same name; once for one `request_id`.

        Raises SheetNotFound and AnswersInvalid.
        """
        sheet = self.get(sheet_id)
        name = ensure_text(" ".join(rater.split()), "rater", 80, min_length=1)
        unknown = [label for label in answers if label not in set(sheet.labels)]
        if unknown:
            raise AnswersInvalid(
                f"{', '.join(unknown[:_NAMED_ERRORS])}: no such pictures on {sheet.name}, which has "
                f"{sheet.labels[0]} to {sheet.labels[-1]}; is the form of another sheet?",
                field="ratings",
            )
        if not answers:
            raise AnswersInvalid(f"{name} rated no picture; fill in at least one", field="ratings")
        submission = Submission(name, submitted_by, self._now(), answers)
        request = submission_body(replace(submission, time=""))
        self._sequences.sequence(sheet_id).append_with(
            lambda _: submission_body(submission), op_id=f"submit/{request_id}", request=request
        )
        return self.get(sheet_id)

    def of_job(self, job_id: str) -> list[Sheet]:
        """Sheets about what a job trained, newest first."""
        return [sheet for sheet in self.listed() if sheet.job == job_id]

    def _now(self) -> str:
        return self._clock.now().isoformat(timespec="milliseconds")
