"""Between the contract's messages and the domain's values; no rules of its own beyond enumerations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir.common.errors import InvalidArgument
from terroir.inference.adapters.tiers import Tier
from terroir.inference.admission.priority import Priority
from terroir.inference.delivery.picture_files import PictureFormat
from terroir.inference.delivery.progress import AllMade, PictureMade, PreviewMade, Progress, StepMade, Waiting
from terroir.inference.delivery.provenance import ProvenanceProfile
from terroir.inference.request.cover_size import AspectRatio
from terroir.inference.request.wish import RawWish

CHUNK_BYTES: Final = 1024 * 1024
_FORMATS: Final = {
    pb.PICTURE_FORMAT_UNSPECIFIED: PictureFormat.PNG,
    pb.PICTURE_FORMAT_PNG: PictureFormat.PNG,
    pb.PICTURE_FORMAT_JPEG: PictureFormat.JPEG,
    pb.PICTURE_FORMAT_WEBP: PictureFormat.WEBP,
}

TIERS: Final = {
    Tier.DEVICE: pb.TIER_DEVICE,
    Tier.HOST: pb.TIER_HOST,
    Tier.DISK: pb.TIER_DISK,
    Tier.REGISTRY: pb.TIER_REGISTRY,
}

PRIORITIES: Final = {
    pb.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    pb.PRIORITY_HIGH: Priority.HIGH,
    pb.PRIORITY_NORMAL: Priority.NORMAL,
    pb.PRIORITY_BACKGROUND: Priority.BACKGROUND,
}


ASPECT_RATIOS: Final = {
    pb.ASPECT_RATIO_UNSPECIFIED: None,
    pb.ASPECT_RATIO_SQUARE: AspectRatio.SQUARE,
    pb.ASPECT_RATIO_WIDE_16_9: AspectRatio.WIDE_16_9,
    pb.ASPECT_RATIO_TALL_3_4: AspectRatio.TALL_3_4,
}

_PROFILES: Final = {
    pb.PROVENANCE_PROFILE_UNSPECIFIED: None,
    pb.PROVENANCE_PROFILE_PRIVATE: ProvenanceProfile.PRIVATE,
    pb.PROVENANCE_PROFILE_PUBLIC: ProvenanceProfile.PUBLIC,
}

_T = TypeVar("_T")


def raw_wish(request: pb.GenerateRequest) -> RawWish:
    """The request's fields, absent ones as None."""
    return RawWish(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        adapters=tuple(
            (
                entry.adapter,
                entry.weight if entry.HasField("weight") else None,
                entry.text_encoder_weight if entry.HasField("text_encoder_weight") else None,
            )
            for entry in request.adapters
        ),
        region=request.region,
        width=request.width,
        height=request.height,
        steps=request.steps,
        guidance_scale=request.guidance_scale if request.HasField("guidance_scale") else None,
        sampler=request.sampler,
        seeds=tuple(request.seeds),
        preview_interval_steps=request.preview_interval_steps,
        priority=chosen(request.priority, PRIORITIES, "priority"),
        variants=request.variants,
        aspect_ratio=chosen(request.aspect_ratio, ASPECT_RATIOS, "aspect_ratio"),
        init_picture=_init_picture(request),
        variation=(request.variation.seed, request.variation.strength) if request.HasField("variation") else None,
        provenance_profile=chosen(request.provenance_profile, _PROFILES, "provenance_profile"),
    )


def picture_format(value: int) -> PictureFormat:
    """Raises InvalidArgument (UNKNOWN_FORMAT)."""
    return chosen(value, _FORMATS, "format")


def chosen(value: int, known: Mapping[Any, _T], field: str) -> _T:
    """The domain's value of an enumeration's number; raises InvalidArgument (UNKNOWN_<FIELD>)."""
    if value not in known:
        raise InvalidArgument(
            f"{field} {value} is unknown; use a number of {', '.join(str(number) for number in known)}",
            reason=f"UNKNOWN_{field.upper()}",
            field=field,
        )
    return known[value]


def _init_picture(request: pb.GenerateRequest) -> tuple[bytes, float] | None:
    return (request.init_image.data, request.init_image.strength) if request.HasField("init_image") else None


def responses(progress: Progress) -> Iterator[pb.GenerateResponse]:
    """One message, or as many chunks as a picture needs."""
    if isinstance(progress, Waiting):
        yield pb.GenerateResponse(
            queued=pb.Queued(position=progress.position, predicted_seconds=progress.predicted_seconds)
        )
    elif isinstance(progress, StepMade):
        yield pb.GenerateResponse(step=pb.StepDone(step=progress.step, total_steps=progress.total))
    elif isinstance(progress, PreviewMade):
        yield pb.GenerateResponse(preview=pb.Preview(index=progress.index, step=progress.step, jpeg=progress.jpeg))
    elif isinstance(progress, PictureMade):
        yield from _chunks(progress)
    else:
        yield pb.GenerateResponse(done=_done(progress))


def _chunks(picture: PictureMade) -> Iterator[pb.GenerateResponse]:
    for start in range(0, len(picture.data), CHUNK_BYTES):
        data = picture.data[start : start + CHUNK_BYTES]
        last = start + CHUNK_BYTES >= len(picture.data)
        chunk = pb.PictureChunk(
            index=picture.index,
            seed=picture.seed,
            data=data,
            last=last,
            picture_id=picture.picture_id,
            provenance=picture.provenance if last else "",
        )
        yield pb.GenerateResponse(picture=chunk)


def _done(done: AllMade) -> pb.Done:
    return pb.Done(
        adapters=[
            pb.AppliedAdapter(
                version=adapter.version,
                file_digest=adapter.file_digest,
                weight=adapter.weight,
                text_encoder_weight=adapter.text_encoder_weight,
                matched_layers=adapter.matched_layers,
                ignored_keys=origin.ignored_keys,
                found=TIERS[origin.found],
            )
            for adapter, origin in zip(done.adapters, done.sources, strict=True)
        ],
        queue_seconds=done.queue_seconds,
        compute_seconds=done.compute_seconds,
        region_chain=done.region_chain,
        warnings=done.warnings,
        load_seconds=done.load_seconds,
        hidden_load_seconds=done.hidden_load_seconds,
    )
