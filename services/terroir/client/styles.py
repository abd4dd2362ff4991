"""Styles from a program: pictures, a region and a configuration in, a judged version under `staging` out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import grpc

from terroir._proto.dataset.v1 import dataset_pb2
from terroir._proto.training.v1 import style_pb2 as pb
from terroir._proto.training.v1 import style_pb2_grpc
from terroir.client.calls import UNARY_SECONDS, new_request_id, typed_errors, typed_stream
from terroir.client.datasets import Datasets, FolderPicture, scan_folder
from terroir.common.errors import (
    AlreadyExists,
    Cancelled,
    FailedPrecondition,
    InvalidArgument,
    TerroirError,
    Unavailable,
)

PHASES: Final = {
    pb.REGISTRATION_PHASE_IMPORTING: "importing", pb.REGISTRATION_PHASE_CAPTIONING: "captioning",
    pb.REGISTRATION_PHASE_FREEZING: "freezing", pb.REGISTRATION_PHASE_QUEUED: "queued",
    pb.REGISTRATION_PHASE_TRAINING: "training", pb.REGISTRATION_PHASE_JUDGING: "judging",
    pb.REGISTRATION_PHASE_PUBLISHING: "publishing", pb.REGISTRATION_PHASE_STAGING: "staging",
}  # fmt: skip
STATES: Final = {
    pb.REGISTRATION_STATE_RUNNING: "running", pb.REGISTRATION_STATE_SUCCEEDED: "succeeded",
    pb.REGISTRATION_STATE_FAILED: "failed", pb.REGISTRATION_STATE_CANCELLED: "cancelled",
}  # fmt: skip
_UPLOAD_TRIES: Final = 4
_PAUSE_STEP_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 5.0

Uploaded = Callable[[int, int], None]
"""Hears of pictures that are there, and of how many."""


class StyleOperation:
    """A registration that goes on by itself: watch it, or leave it and come back with its name."""

    def __init__(self, styles: Styles, registration: pb.StyleRegistration) -> None:
        self._styles = styles
        self.registration = registration
        """As it was when it was last looked at."""

    @property
    def name(self) -> str:
        """`styles/{style}/registrations/{id}`."""
        return self.registration.name

    @property
    def ended(self) -> bool:
        """Whether nothing will happen any more."""
        return self.registration.state != pb.REGISTRATION_STATE_RUNNING

    def refresh(self) -> pb.StyleRegistration:
        """Look again."""
        self.registration = self._styles.get(self.name)
        return self.registration

    def watch(self) -> Iterator[pb.StyleRegistration]:
        """The registration at every change, until it has ended; a lost connection is taken up again."""
        for seen in self._styles.watch(self.name):
            self.registration = seen
            yield seen

    def result(self) -> str:
        """Wait for the published version, `adapters/{id}/versions/{number}`.

        Raises FailedPrecondition with the reason of the step that failed, and Cancelled.
        """
        for _ in self.watch():
            pass
        return version_of(self.registration)

    def cancel(self) -> pb.StyleRegistration:
        """Ask for its end."""
        self.registration = self._styles.cancel(self.name)
        return self.registration


class Styles:
    """Calls of StyleService, and the upload before them."""

    def __init__(self, channel: grpc.Channel, datasets: Datasets) -> None:
        self._stub = style_pb2_grpc.StyleServiceStub(channel)
        self._datasets = datasets

    def register(
        self,
        style: str,
        *,
        region: str,
        config: str | Path = "",
        folder: str | Path | None = None,
        dataset: str = "",
        import_source: str = "",
        rights: str = "",
        trigger_word: str = "",
        license_id: str = "",
        assign_region: bool = False,
        new_version: bool = False,
        request_id: str | None = None,
        on_upload: Uploaded = lambda _done, _total: None,
    ) -> StyleOperation:
        """Register a style from a folder of pictures, from a dataset that is there, or from an import source.

        `config` is YAML, or the path of a file with it. A folder is uploaded first, into `datasets/{style}` or
        `dataset`; safe to repeat after any error, as what arrived is not sent again. Raises InvalidArgument
        (PICTURES_MISSING, FOLDER_…, CONFIG_…) and what the services raise.
        """
        request = pb.RegisterStyleRequest(
            style_id=style,
            region=_named("regions", region),
            config_yaml=_config(config),
            assign_region=assign_region,
            new_version=new_version,
            request_id=request_id or new_request_id(),
        )
        if import_source:
            request.import_source = _named("importSources", import_source)
            request.rights_statement, request.trigger_word, request.license = rights, trigger_word, license_id
        elif folder is not None or dataset:
            request.dataset = _named("datasets", dataset or style)
        if folder is not None:
            if import_source:
                raise InvalidArgument(
                    "a folder and an import source were both given; keep one", reason="PICTURES_TWICE", field="folder"
                )
            pictures = scan_folder(Path(folder))
            self._check(request)  # what is refused is refused before anything is sent
            fields = dataset_pb2.Dataset(
                display_name=style, region=region.removeprefix("regions/"), rights_statement=rights,
                trigger_word=trigger_word, license=license_id,
            )  # fmt: skip
            self.upload(request.dataset, pictures, fields, on_upload)
        with typed_errors():
            return StyleOperation(self, self._stub.RegisterStyle(request, timeout=UNARY_SECONDS))

    def upload(
        self, dataset: str, pictures: Sequence[FolderPicture], fields: dataset_pb2.Dataset, on_upload: Uploaded
    ) -> None:
        """Bring pictures into a dataset, which is made if it is not there.

        Raises InvalidArgument (RIGHTS_MISSING), FailedPrecondition (DATASET_DIFFERS), and what the dataset service
        raises; a broken connection is taken up until four tries in a row brought no picture.
        """
        if not fields.rights_statement.strip():
            raise InvalidArgument(
                'say that you hold the rights to train on the pictures: --rights "…" (rights=…)',
                reason="RIGHTS_MISSING",
                field="rights",
            )
        self._ensure_dataset(dataset, fields)
        arrived: set[Path] = set()
        tries = 0
        while True:
            before = len(arrived)
            try:
                for imported in self._datasets.import_pictures(dataset, pictures):
                    arrived.add(imported.path)
                    on_upload(len(arrived), len(pictures))
                return
            except Unavailable:
                tries = 1 if len(arrived) > before else tries + 1
                if tries == _UPLOAD_TRIES:
                    raise
                time.sleep(_PAUSE_STEP_SECONDS * tries)

    def get(self, name: str) -> pb.StyleRegistration:
        """One registration by its name, or a style's newest by `styles/{id}`."""
        with typed_errors():
            return self._stub.GetStyleRegistration(pb.GetStyleRegistrationRequest(name=name), timeout=UNARY_SECONDS)

    def operation(self, name: str) -> StyleOperation:
        """A registration to come back to."""
        return StyleOperation(self, self.get(name))

    def list(self, style: str = "") -> Iterator[pb.StyleRegistration]:
        """Registrations, newest first, page by page; those of one style, or all."""
        token, parent = "", _named("styles", style) if style else ""
        while True:
            request = pb.ListStyleRegistrationsRequest(parent=parent, page_token=token)
            with typed_errors():
                page = self._stub.ListStyleRegistrations(request, timeout=UNARY_SECONDS)
            yield from page.registrations
            if not (token := page.next_page_token):
                return

    def watch(self, name: str) -> Iterator[pb.StyleRegistration]:
        """The registration at every change, until it has ended; a lost connection is taken up again.

        Raises what the first connection does, and later what no retry can mend.
        """
        begun, pause = False, 0.0
        while True:
            try:
                request = pb.WatchStyleRegistrationRequest(name=name)
                for answer in typed_stream(self._stub.WatchStyleRegistration(request)):
                    begun, pause = True, 0.0
                    yield answer.registration
                return
            except Unavailable:
                if not begun:
                    raise
            pause = min(pause + _PAUSE_STEP_SECONDS, _LONGEST_PAUSE_SECONDS)
            time.sleep(pause)

    def cancel(self, name: str) -> pb.StyleRegistration:
        """Ask a registration to end, and its job with it."""
        with typed_errors():
            return self._stub.CancelStyleRegistration(
                pb.CancelStyleRegistrationRequest(name=name), timeout=UNARY_SECONDS
            )

    def _check(self, request: pb.RegisterStyleRequest) -> None:
        checked = pb.RegisterStyleRequest()
        checked.CopyFrom(request)
        checked.validate_only = True
        with typed_errors():
            self._stub.RegisterStyle(checked, timeout=UNARY_SECONDS)

    def _ensure_dataset(self, dataset: str, fields: dataset_pb2.Dataset) -> None:
        try:
            self._datasets.create(dataset.removeprefix("datasets/"), fields)
        except AlreadyExists:  # more pictures for it, or the same again
            found = self._datasets.get(dataset)
            if found.rights_statement != fields.rights_statement:
                raise FailedPrecondition(
                    f"{dataset} has another rights statement ({found.rights_statement[:80]!r}), and a dataset's never "
                    "changes: say the same, or name another dataset for these pictures",
                    reason="DATASET_DIFFERS",
                ) from None


def version_of(registration: pb.StyleRegistration) -> str:
    """What an ended registration published; raises FailedPrecondition with the step's own reason, and Cancelled."""
    if registration.state == pb.REGISTRATION_STATE_SUCCEEDED:
        return registration.adapter_version
    raise _end_of(registration)


def _end_of(registration: pb.StyleRegistration) -> TerroirError:
    if registration.state == pb.REGISTRATION_STATE_CANCELLED:
        published = (
            f"; {registration.adapter_version} was published all the same" if registration.adapter_version else ""
        )
        return Cancelled(f"{registration.name} was cancelled{published}", reason="REGISTRATION_CANCELLED")
    return FailedPrecondition(
        f"{registration.name} failed while {registration.error.message}", reason=registration.error.reason
    )


def _named(kind: str, value: str) -> str:
    return value if value.startswith(f"{kind}/") else f"{kind}/{value}"


def _config(config: str | Path) -> str:
    if isinstance(config, str):
        return config
    try:
        return config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read {config}: {error}", reason="CONFIG_MISSING") from error
