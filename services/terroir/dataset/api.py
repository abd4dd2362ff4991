"""Servicer of terroir.dataset.v1.DatasetService: parse, call the domain, map."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc

from terroir._proto.dataset.v1 import dataset_pb2 as pb
from terroir._proto.dataset.v1 import dataset_pb2_grpc
from terroir.common.errors import InvalidArgument
from terroir.common.validation import PageRequest, ensure_name, page
from terroir.dataset.captions import Captions
from terroir.dataset.catalogue import Catalogue
from terroir.dataset.freezing import Versions
from terroir.dataset.importing import Importer
from terroir.dataset.messages import (
    captioned_message,
    dataset_fields,
    dataset_message,
    image_message,
    import_answer,
    import_messages,
    version_message,
)
from terroir.dataset.pictures import Pictures

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_DATASET: Final = "datasets/{dataset}"
_VERSION: Final = "datasets/{dataset}/versions/{version}"


@dataclass(frozen=True)
class Domain:
    """What the servicer calls."""

    catalogue: Catalogue
    importer: Importer
    pictures: Pictures
    captions: Captions
    versions: Versions


class DatasetServicer(dataset_pb2_grpc.DatasetServiceServicer):
    """Serves the contract. Whatever blocks runs in a thread; errors are mapped by the server kit's interceptor."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        domain.importer.metrics.store.watch(domain.importer.blobs.store)

    async def CreateDataset(self, request: pb.CreateDatasetRequest, context: Context) -> pb.Dataset:
        fields = dataset_fields(request.dataset)
        create = self._domain.catalogue.create
        return dataset_message(await asyncio.to_thread(create, request.dataset_id, fields, request.request_id))

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.Dataset:
        dataset_id = _dataset_id(request.name, "name")
        return dataset_message(await asyncio.to_thread(self._domain.catalogue.get, dataset_id))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Context) -> pb.ListDatasetsResponse:
        wanted = page(request.page_size, request.page_token, default=50, limit=200, query="datasets")
        found = await asyncio.to_thread(self._domain.catalogue.list, wanted.after or "", wanted.size + 1)
        shown = found[: wanted.size]
        return pb.ListDatasetsResponse(
            datasets=[dataset_message(dataset) for dataset in shown],
            next_page_token=wanted.next_token(shown[-1].dataset_id) if len(found) > wanted.size else "",
        )

    async def ImportImages(
        self, request_iterator: AsyncIterator[pb.ImportImagesRequest], context: Context
    ) -> AsyncIterator[pb.ImportImagesResponse]:
        requests = aiter(request_iterator)
        first = await anext(requests, pb.ImportImagesRequest())
        if first.WhichOneof("message") != "start":
            raise InvalidArgument("an import begins with start, naming the dataset", reason="IMPORT_NOT_STARTED")
        dataset_id = _dataset_id(first.start.dataset, "start.dataset")
        await asyncio.to_thread(self._domain.catalogue.get, dataset_id)
        async with aclosing(self._domain.importer.run(dataset_id, import_messages(requests))) as answers:
            async for answer in answers:
                yield import_answer(answer)

    async def ListImages(self, request: pb.ListImagesRequest, context: Context) -> pb.ListImagesResponse:
        dataset_id = _dataset_id(request.dataset, "dataset")
        wanted = page(request.page_size, request.page_token, default=100, limit=500, query=["images", dataset_id])
        skip = _place(wanted) or 0
        images, more = await asyncio.to_thread(self._domain.pictures.list, dataset_id, skip, wanted.size)
        return pb.ListImagesResponse(
            images=[image_message(image) for image in images],
            next_page_token=wanted.next_token(str(skip + wanted.size)) if more else "",
        )

    async def DownloadImage(
        self, request: pb.DownloadImageRequest, context: Context
    ) -> AsyncIterator[pb.DownloadImageResponse]:
        dataset_id = _dataset_id(request.dataset, "dataset")
        chunks = await asyncio.to_thread(self._domain.pictures.open, dataset_id, request.digest)
        while data := await asyncio.to_thread(next, chunks, b""):
            yield pb.DownloadImageResponse(data=data)

    async def CaptionImages(
        self, request: pb.CaptionImagesRequest, context: Context
    ) -> AsyncIterator[pb.CaptionImagesResponse]:
        dataset_id = _dataset_id(request.dataset, "dataset")
        await asyncio.to_thread(self._domain.catalogue.get, dataset_id)
        async with aclosing(self._domain.captions.draft(dataset_id, request.captioner)) as drafts:
            async for captioned in drafts:
                yield captioned_message(captioned)

    async def UpdateCaption(self, request: pb.UpdateCaptionRequest, context: Context) -> pb.Image:
        dataset_id = _dataset_id(request.dataset, "dataset")
        await asyncio.to_thread(self._domain.catalogue.get, dataset_id)
        update = self._domain.captions.update
        return image_message(
            await asyncio.to_thread(update, dataset_id, request.digest, request.text, request.request_id)
        )

    async def FreezeVersion(self, request: pb.FreezeVersionRequest, context: Context) -> pb.DatasetVersion:
        dataset_id = _dataset_id(request.dataset, "dataset")
        return version_message(await asyncio.to_thread(self._domain.versions.freeze, dataset_id, request.request_id))

    async def GetVersion(self, request: pb.GetVersionRequest, context: Context) -> pb.DatasetVersion:
        dataset_id, number = _version_of(request.name)
        return version_message(await asyncio.to_thread(self._domain.versions.get, dataset_id, number))

    async def ListVersions(self, request: pb.ListVersionsRequest, context: Context) -> pb.ListVersionsResponse:
        dataset_id = _dataset_id(request.dataset, "dataset")
        wanted = page(request.page_size, request.page_token, default=50, limit=200, query=["versions", dataset_id])
        below = _place(wanted)
        shown = await asyncio.to_thread(self._domain.versions.list, dataset_id, below, wanted.size)
        return pb.ListVersionsResponse(
            versions=[version_message(version) for version in shown],
            next_page_token=wanted.next_token(str(shown[-1].number)) if shown and shown[-1].number > 1 else "",
        )


def _dataset_id(name: str, field: str) -> str:
    return ensure_name(name, field, _DATASET)["dataset"]


def _version_of(name: str) -> tuple[str, int | None]:
    """Dataset and number; None stands for the newest."""
    if name.count("/") == 1:
        return _dataset_id(name, "name"), None
    parts = ensure_name(name, "name", _VERSION)
    return parts["dataset"], int(parts["version"])


def _place(wanted: PageRequest) -> int | None:
    """The number in a page token: pictures to skip, or the version that the page lies below; None on the first page."""
    if wanted.after is None:
        return None
    if not (wanted.after.isascii() and wanted.after.isdigit() and len(wanted.after) <= 9):
        raise InvalidArgument(
            "page_token is damaged; start again without it", reason="INVALID_PAGE_TOKEN", field="page_token"
        )
    return int(wanted.after)
