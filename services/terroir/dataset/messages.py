"""Map domain values to the messages of the contract and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from terroir._proto.dataset.v1 import dataset_pb2 as pb
from terroir.common.errors import InvalidArgument
from terroir.dataset.captions import Captioned
from terroir.dataset.model import Caption, Dataset, DatasetFields, Finding, FrozenVersion, JudgedPicture
from terroir.dataset.offers import Chunk, Offer, OffersDone, ToClient, ToServer, Wanted


def dataset_fields(message: pb.Dataset) -> DatasetFields:
    """The fields that a person sets."""
    return DatasetFields(
        display_name=message.display_name,
        region=message.region,
        description=message.description,
        trigger_word=message.trigger_word,
        license=message.license,
        rights_statement=message.rights_statement,
    )


def dataset_message(dataset: Dataset) -> pb.Dataset:
    """A dataset with its counts and times."""
    fields = dataset.fields
    return pb.Dataset(
        name=f"datasets/{dataset.dataset_id}",
        display_name=fields.display_name,
        region=fields.region,
        description=fields.description,
        trigger_word=fields.trigger_word,
        license=fields.license,
        rights_statement=fields.rights_statement,
        image_count=dataset.image_count,
        create_time=_timestamp(dataset.created_at),
        etag=dataset.etag,
    )


def image_message(judged: JudgedPicture) -> pb.Image:
    """A picture with findings and caption; an unreadable one has no size in pixels."""
    picture, measured = judged.picture, judged.picture.measured
    return pb.Image(
        digest=picture.digest,
        file_name=picture.file_name,
        width=measured.width if measured else 0,
        height=measured.height if measured else 0,
        size_bytes=picture.size_bytes,
        verdict=pb.Verdict.ValueType(judged.verdict),
        findings=[_finding_message(finding) for finding in judged.findings],
        caption=_caption_message(judged.caption) if judged.caption else None,
    )


def version_message(version: FrozenVersion) -> pb.DatasetVersion:
    """A version, with the pictures that the value carries."""
    return pb.DatasetVersion(
        name=f"datasets/{version.dataset_id}/versions/{version.number}",
        digest=version.digest,
        image_count=version.image_count,
        images=[image_message(image) for image in version.images],
        trigger_word=version.trigger_word,
        rights_statement=version.rights_statement,
        gates_version=version.gates_version,
        create_time=_timestamp(version.created_at),
    )


def captioned_message(captioned: Captioned) -> pb.CaptionImagesResponse:
    """One step of a captioning call."""
    return pb.CaptionImagesResponse(image=image_message(captioned.picture), done=captioned.done, total=captioned.total)


def import_answer(answer: ToClient) -> pb.ImportImagesResponse:
    """What the server says on an import stream."""
    if isinstance(answer, Wanted):
        return pb.ImportImagesResponse(wanted=pb.ImageWanted(digest=answer.digest))
    return pb.ImportImagesResponse(
        verdict=pb.ImageVerdict(image=image_message(answer.picture), already_present=answer.already_present)
    )


async def import_messages(requests: AsyncIterator[pb.ImportImagesRequest]) -> AsyncIterator[ToServer]:
    """What follows `start` on an import stream. Raises InvalidArgument for a message that may not come here."""
    async for request in requests:
        step = request.WhichOneof("message")
        if step == "offer":
            offer = request.offer
            yield Offer(offer.digest, offer.file_name, offer.size_bytes, offer.caption)
        elif step == "chunk":
            yield Chunk(request.chunk.digest, request.chunk.offset, request.chunk.data)
        elif step == "offers_done":
            yield OffersDone()
        elif step == "start":
            raise InvalidArgument("start came twice; open one stream for each dataset", reason="IMPORT_STARTED_TWICE")
        else:
            raise InvalidArgument(
                "an import message is empty; set offer, chunk or offers_done", reason="IMPORT_MESSAGE_EMPTY"
            )


def _finding_message(finding: Finding) -> pb.Finding:
    return pb.Finding(
        gate=finding.gate,
        verdict=pb.Verdict.ValueType(finding.verdict),
        value=finding.value,
        threshold=finding.threshold,
        message=finding.message,
    )


def _caption_message(caption: Caption) -> pb.Caption:
    return pb.Caption(text=caption.text, draft=caption.draft, source=caption.source, agreement=caption.agreement)


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
