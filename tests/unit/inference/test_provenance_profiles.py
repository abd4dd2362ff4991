"""What files say about themselves, in both profiles and all formats."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from terroir.inference.delivery.picture_files import PictureFormat, encode_picture
from terroir.inference.delivery.provenance import AppliedAdapter, Provenance, ProvenanceProfile
from terroir.inference.engine.messages import Raster

RASTER = Raster(16, 8, bytes(range(128)) * 3)
LABEL = b"trainedAlgorithmicMedia"
PICTURE_ID = "3d9f2b8e-0f5c-4a55-9a3e-000000000001"


def provenance(prompt: str = "a secret red teapot") -> Provenance:
    return Provenance(
        base="bases/tiny", base_digest="b" * 64, prompt=prompt, negative_prompt="hidden words", seed=987654321,
        width=16, height=8, steps=7, guidance_scale=3.5, sampler="euler-a", picture_id=PICTURE_ID,
        adapters=(AppliedAdapter("adapters/jiangnan/versions/3", "a" * 64, 0.8, 0.5, 12),),
    )  # fmt: skip


def encoded(file_format: PictureFormat, profile: ProvenanceProfile, prompt: str = "a secret red teapot") -> bytes:
    return encode_picture(RASTER, file_format, provenance(prompt), profile)


@pytest.mark.parametrize("file_format", PictureFormat)
def test_the_private_profile_tells_everything_that_draws_it_again(file_format: PictureFormat) -> None:
    data = encoded(file_format, ProvenanceProfile.PRIVATE)
    for told in (LABEL, b"a secret red teapot", b"987654321", b"adapters/jiangnan/versions/3", PICTURE_ID.encode()):
        assert told in data


@pytest.mark.parametrize("file_format", PictureFormat)
def test_the_public_profile_tells_that_a_model_made_it_and_an_identifier_alone(file_format: PictureFormat) -> None:
    data = encoded(file_format, ProvenanceProfile.PUBLIC)
    assert LABEL in data and PICTURE_ID.encode() in data
    for hidden in (b"teapot", b"hidden", b"987654321", b"jiangnan", b"tiny", b"euler", b"a" * 16, b"b" * 16):
        assert hidden not in data


def test_a_png_carries_the_profile_as_text_too() -> None:
    for profile in ProvenanceProfile:
        image = Image.open(io.BytesIO(encoded(PictureFormat.PNG, profile)))
        told = json.loads(image.text["terroir"])  # type: ignore[attr-defined]
        assert told["ai_generated"] is True and told["picture_id"] == PICTURE_ID
        assert ("prompt" in told) is (profile is ProvenanceProfile.PRIVATE)


def test_a_jpeg_whose_prompt_does_not_fit_keeps_label_and_identifier() -> None:
    """JPEG holds 65,533 bytes of XMP; the whole provenance was once left out beyond that, the label with it."""
    data = encoded(PictureFormat.JPEG, ProvenanceProfile.PRIVATE, prompt="江" * 12_000)
    assert LABEL in data and PICTURE_ID.encode() in data
    assert Image.open(io.BytesIO(data)).size == (16, 8)
