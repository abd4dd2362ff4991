"""Datasets from a program: create, import a folder, caption, freeze."""

from __future__ import annotations

import csv
import hashlib
import io
import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from terroir._proto.dataset.v1 import dataset_pb2 as pb
from terroir._proto.dataset.v1 import dataset_pb2_grpc
from terroir.client.calls import UNARY_SECONDS, chunks, new_request_id, typed_errors, typed_stream
from terroir.common.errors import InvalidArgument

_SUFFIXES: Final = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


MASK_SUFFIX: Final = ".mask.png"
"""Ends the name of a file that masks the picture of the same name, for training without a server."""


@dataclass(frozen=True)
class FolderPicture:
    """A picture file and its sidecar caption, if it has one."""

    path: Path
    caption: str


@dataclass(frozen=True)
class ImportedPicture:
    """The server's verdict on one picture."""

    path: Path
    image: pb.Image
    already_present: bool


def scan_folder(folder: Path, captions: Path | None = None) -> list[FolderPicture]:
    """Picture files directly in `folder`, with captions from `name.txt` or `metadata.csv` (`file_name,text`).

    `captions` is a file like metadata.csv that replaces both. `name.mask.png` is no picture but a mask of one. Raises
    InvalidArgument for a folder that is missing (FOLDER_MISSING) or holds no picture (FOLDER_EMPTY), for captions that
    cannot be read (BAD_METADATA_CSV, CAPTIONS_UNREADABLE) and for `captions` that name no picture of the folder
    (CAPTIONS_OF_OTHERS).
    """
    if not folder.is_dir():
        raise InvalidArgument(
            f"{folder} is not a folder; give the folder that holds the pictures", reason="FOLDER_MISSING"
        )
    table = _metadata(folder / "metadata.csv") if captions is None else _rows(captions)
    pictures = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _SUFFIXES or path.name.endswith(MASK_SUFFIX) or not path.is_file():
            continue
        sidecar = path.with_suffix(".txt")
        aside = captions is None and sidecar.is_file()
        pictures.append(FolderPicture(path, _text(sidecar).strip() if aside else table.get(path.name, "")))
    if not pictures:
        raise InvalidArgument(
            f"{folder} holds no picture; put 50 to 200 files ({', '.join(sorted(_SUFFIXES))}) directly into it",
            reason="FOLDER_EMPTY",
        )
    if captions is not None and table.keys().isdisjoint(picture.path.name for picture in pictures):
        raise InvalidArgument(
            f"{captions} names no picture of {folder}; file_name should be {pictures[0].path.name} and such",
            reason="CAPTIONS_OF_OTHERS",
        )
    return pictures


def _metadata(path: Path) -> dict[str, str]:
    return _rows(path) if path.exists() else {}


def _rows(path: Path) -> dict[str, str]:
    rows = csv.DictReader(io.StringIO(_text(path), newline=""))
    columns = rows.fieldnames or []
    if not {"file_name", "text"} <= set(columns):
        raise InvalidArgument(
            f"{path} needs the columns file_name and text in its first line, it has {', '.join(columns) or 'nothing'}",
            reason="BAD_METADATA_CSV",
        )
    return {row["file_name"]: (row["text"] or "").strip() for row in rows}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(
            f"cannot read the captions in {path}: {error}; save it as UTF-8 text", reason="CAPTIONS_UNREADABLE"
        ) from error


class Datasets:
    """Calls of DatasetService."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = dataset_pb2_grpc.DatasetServiceStub(channel)

    def create(self, dataset_id: str, fields: pb.Dataset, request_id: str | None = None) -> pb.Dataset:
        """Create an empty dataset, once for one `request_id`; `fields.name` is ignored."""
        request = pb.CreateDatasetRequest(
            dataset_id=dataset_id, dataset=fields, request_id=request_id or new_request_id()
        )
        with typed_errors():
            return self._stub.CreateDataset(request, timeout=UNARY_SECONDS)

    def get(self, name: str) -> pb.Dataset:
        """One dataset, by `datasets/{id}`."""
        with typed_errors():
            return self._stub.GetDataset(pb.GetDatasetRequest(name=name), timeout=UNARY_SECONDS)

    def list(self) -> Iterator[pb.Dataset]:
        """All datasets, page by page."""
        token = ""
        while True:
            with typed_errors():
                page = self._stub.ListDatasets(pb.ListDatasetsRequest(page_token=token), timeout=UNARY_SECONDS)
            yield from page.datasets
            if not (token := page.next_page_token):
                return

    def images(self, dataset: str) -> Iterator[pb.Image]:
        """All pictures of a dataset, page by page."""
        token = ""
        while True:
            request = pb.ListImagesRequest(dataset=dataset, page_token=token)
            with typed_errors():
                page = self._stub.ListImages(request, timeout=UNARY_SECONDS)
            yield from page.images
            if not (token := page.next_page_token):
                return

    def import_pictures(self, dataset: str, pictures: Sequence[FolderPicture]) -> Iterator[ImportedPicture]:
        """Offer pictures, send those that the server lacks, and yield its verdicts as they come.

        Safe to repeat after a broken connection: what arrived is not sent again.
        """
        by_digest: dict[str, FolderPicture] = {}
        outgoing: queue.SimpleQueue[pb.ImportImagesRequest | None] = queue.SimpleQueue()
        outgoing.put(pb.ImportImagesRequest(start=pb.ImportStart(dataset=dataset)))
        for picture in pictures:
            data = picture.path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            by_digest[digest] = picture
            offer = pb.ImageOffer(
                digest=digest, file_name=picture.path.name, size_bytes=len(data), caption=picture.caption
            )
            outgoing.put(pb.ImportImagesRequest(offer=offer))
        outgoing.put(pb.ImportImagesRequest(offers_done=pb.OffersDone()))
        answers = self._stub.ImportImages(iter(outgoing.get, None))
        try:
            for answer in typed_stream(answers):
                if answer.WhichOneof("message") == "wanted":
                    _send(by_digest[answer.wanted.digest].path, answer.wanted.digest, outgoing)
                else:
                    verdict = answer.verdict
                    yield ImportedPicture(by_digest[verdict.image.digest].path, verdict.image, verdict.already_present)
        finally:
            outgoing.put(None)
            answers.cancel()  # type: ignore[no-untyped-call]  # untyped in the stubs

    def caption(self, dataset: str, captioner: str = "") -> Iterator[pb.CaptionImagesResponse]:
        """Draft captions where there are none; yields each as it is made."""
        request = pb.CaptionImagesRequest(dataset=dataset, captioner=captioner)
        return typed_stream(self._stub.CaptionImages(request))

    def update_caption(self, dataset: str, digest: str, text: str) -> pb.Image:
        """Write a caption by hand."""
        request = pb.UpdateCaptionRequest(dataset=dataset, digest=digest, text=text, request_id=new_request_id())
        with typed_errors():
            return self._stub.UpdateCaption(request, timeout=UNARY_SECONDS)

    def download(self, dataset: str, digest: str) -> bytes:
        """One picture's file, as imported."""
        request = pb.DownloadImageRequest(dataset=dataset, digest=digest)
        return b"".join(part.data for part in typed_stream(self._stub.DownloadImage(request, timeout=300.0)))

    def freeze(self, dataset: str, request_id: str | None = None) -> pb.DatasetVersion:
        """Freeze what is accepted into a version, once for one `request_id`."""
        request = pb.FreezeVersionRequest(dataset=dataset, request_id=request_id or new_request_id())
        with typed_errors():
            return self._stub.FreezeVersion(request, timeout=UNARY_SECONDS)

    def version(self, name: str) -> pb.DatasetVersion:
        """One version, by `datasets/{id}/versions/{number}`, or the newest by `datasets/{id}`."""
        with typed_errors():
            return self._stub.GetVersion(pb.GetVersionRequest(name=name), timeout=UNARY_SECONDS)

    def versions(self, dataset: str) -> Iterator[pb.DatasetVersion]:
        """All versions, newest first."""
        token = ""
        while True:
            request = pb.ListVersionsRequest(dataset=dataset, page_token=token)
            with typed_errors():
                page = self._stub.ListVersions(request, timeout=UNARY_SECONDS)
            yield from page.versions
            if not (token := page.next_page_token):
                return


def _send(path: Path, digest: str, outgoing: queue.SimpleQueue[pb.ImportImagesRequest | None]) -> None:
    for offset, part in chunks(path.read_bytes()):
        outgoing.put(pb.ImportImagesRequest(chunk=pb.ImageChunk(digest=digest, offset=offset, data=part)))
