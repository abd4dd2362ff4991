from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from dataset_files import digest_of, drawn, encoded
from import_client import File, Server, import_files
from prometheus_client import CollectorRegistry

from terroir.common.clock import FixedClock
from terroir.common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from terroir.dataset.captions import Captioned, Captions
from terroir.dataset.catalogue import Catalogue
from terroir.dataset.freezing import Versions
from terroir.dataset.metrics import DatasetMetrics
from terroir.dataset.model import DatasetFields
from terroir.dataset.pictures import Pictures
from terroir.dataset.tagging import Draft, Thumbnail
from terroir.dataset.thresholds import Thresholds
from terroir.store.documents import Collection
from terroir.store.errors import OperationConflict

FIELDS = DatasetFields("Ink", "CN-ZJ", "Wet ink", "inkstyle", "CC0-1.0", "ours")
FILES = [File(f"{index:02}.png", encoded(drawn(index)), f"caption {index}") for index in range(3)]
TINY = Thresholds(minimum_side=64)


class SizeTagger:
    """Says how large a picture is."""

    async def draft(self, pictures: Sequence[Thumbnail]) -> Sequence[Draft]:
        return [Draft(f"a picture of {picture.width} by {picture.height}", 0.25) for picture in pictures]

    async def close(self) -> None:
        return None


class House:
    """The dataset domain over one store, with a dataset `ink`."""

    def __init__(self, thresholds: Thresholds = TINY, server: Server | None = None) -> None:
        self.server = server or Server()
        store, blobs, albums, clock = self.server.store, self.server.blobs, self.server.albums, FixedClock()
        self.catalogue = Catalogue(Collection(store, "datasets", clock), albums)
        self.versions = Versions(store, blobs, self.catalogue, albums, thresholds, clock)
        self.pictures = Pictures(self.catalogue, albums, blobs, thresholds)
        self.captions = Captions(albums, blobs, SizeTagger(), thresholds, DatasetMetrics(CollectorRegistry()), clock)
        self.catalogue.create("ink", FIELDS, "first")

    def add(self, *files: File) -> None:
        asyncio.run(import_files(self.server, files))

    def draft(self, captioner: str = "") -> list[Captioned]:
        return asyncio.run(_collected(self.captions.draft("ink", captioner)))


async def _collected(stream: AsyncIterator[Captioned]) -> list[Captioned]:
    return [item async for item in stream]


def test_a_frozen_version_lists_pictures_captions_and_what_judged_them() -> None:
    house = House()
    house.add(*FILES)
    version = house.versions.freeze("ink", "r1")
    assert (version.number, version.image_count, version.trigger_word, version.rights_statement) == (
        1,
        3,
        "inkstyle",
        "ours",
    )
    assert [image.caption.text for image in version.images if image.caption] == [
        file.caption for file in sorted(FILES, key=lambda file: digest_of(file.data))
    ]
    assert version.gates_version.startswith("gates-")
    assert house.versions.get("ink", 1) == house.versions.get("ink", None) == version


def test_the_digest_depends_on_the_content_and_not_on_the_order_of_import() -> None:
    forwards, backwards, recaptioned, retuned = House(), House(), House(), House(replace(TINY, few_pictures=1))
    forwards.add(*FILES)
    backwards.add(*FILES[::-1])
    recaptioned.add(*FILES[:2], replace(FILES[2], caption="other words"))
    retuned.add(*FILES)
    digests = [house.versions.freeze("ink", "r").digest for house in (forwards, backwards, recaptioned, retuned)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_freeze_that_changes_nothing_returns_the_newest_version() -> None:
    house = House()
    house.add(*FILES)
    first = house.versions.freeze("ink", "r1")
    assert house.versions.freeze("ink", "r2") == first
    house.add(File("new.png", encoded(drawn(8)), "another"))
    assert house.versions.freeze("ink", "r3").number == 2


def test_a_repeated_request_returns_its_version_although_more_was_imported() -> None:
    house = House()
    house.add(*FILES)
    first = house.versions.freeze("ink", "r1")
    house.add(File("new.png", encoded(drawn(8))))
    assert house.versions.freeze("ink", "r1") == first


def test_rejected_and_quarantined_pictures_are_kept_out() -> None:
    house = House()
    house.add(*FILES, File("notes.png", b"text"), File("narrow.png", encoded(drawn(4, 64, 320)), "narrow"))
    assert house.versions.freeze("ink", "r").image_count == len(FILES)


def test_an_earlier_version_never_changes() -> None:
    house = House()
    house.add(*FILES)
    first = house.versions.freeze("ink", "r1")
    house.captions.update("ink", digest_of(FILES[0].data), "edited", "e1")
    second = house.versions.freeze("ink", "r2")
    assert house.versions.get("ink", 1) == first
    assert first.digest != second.digest


def test_missing_captions_are_counted_and_the_calls_that_help_are_named() -> None:
    house = House()
    house.add(FILES[0], replace(FILES[1], caption=""), replace(FILES[2], caption=""))
    with pytest.raises(FailedPrecondition, match=r"2 of 3 .*CaptionImages") as caught:
        house.versions.freeze("ink", "r")
    assert caught.value.reason == "CAPTIONS_MISSING"
    assert caught.value.metadata["missing"] == "2"
    with pytest.raises(NotFound):
        house.versions.get("ink", None)


@pytest.mark.parametrize("files", [[], [File("notes.png", b"text")]])
def test_nothing_usable_is_an_empty_dataset(files: list[File]) -> None:
    house = House()
    house.add(*files)
    with pytest.raises(FailedPrecondition) as caught:
        house.versions.freeze("ink", "r")
    assert caught.value.reason == "DATASET_EMPTY"


def test_versions_are_listed_newest_first_in_pages() -> None:
    house = House()
    assert list(house.versions.list("ink", None, 10)) == []
    for index in range(5):
        house.add(File(f"{index}.png", encoded(drawn(index)), "words"))
        house.versions.freeze("ink", f"r{index}")
    first = house.versions.list("ink", None, 2)
    second = house.versions.list("ink", first[-1].number, 2)
    third = house.versions.list("ink", second[-1].number, 2)
    assert [version.number for version in (*first, *second, *third)] == [5, 4, 3, 2, 1]
    assert all(version.images == () for version in first)


def test_drafts_go_to_usable_pictures_without_a_caption() -> None:
    house = House()
    house.add(FILES[0], *(replace(file, caption="") for file in FILES[1:]), File("notes.png", b"text"))
    drafted = house.draft()
    assert [(item.done, item.total) for item in drafted] == [(1, 2), (2, 2)]
    caption = drafted[0].picture.caption
    assert caption is not None
    assert (caption.text, caption.draft, caption.source) == ("a picture of 64 by 64",) * 2 + ("tagger",)
    assert caption.agreement == 0.25
    assert house.draft() == []
    assert house.versions.freeze("ink", "r").image_count == 3


def test_the_tagger_sees_pictures_upright_and_small() -> None:
    house = House()
    turned = drawn(1, 96, 64)
    exif = turned.getexif()
    exif[0x0112] = 6
    house.add(File("turned.png", encoded(turned, exif=exif)), File("large.png", encoded(drawn(2, 700, 600))))
    texts = {
        item.picture.picture.file_name: item.picture.caption.text for item in house.draft() if item.picture.caption
    }
    assert texts == {"turned.png": "a picture of 64 by 96", "large.png": "a picture of 512 by 439"}


def test_an_unknown_captioner_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        House().draft("blip")
    assert caught.value.reason == "UNKNOWN_CAPTIONER"


def test_a_human_text_replaces_the_caption_and_keeps_the_draft() -> None:
    house = House()
    house.add(replace(FILES[0], caption=""))
    house.draft()
    caption = house.captions.update("ink", digest_of(FILES[0].data), " a red boat \n", "e1").caption
    assert caption is not None
    assert (caption.text, caption.draft, caption.source) == ("a red boat", "a picture of 64 by 64", "human")
    assert caption.agreement == 0.0


def test_an_edit_needs_a_text_and_a_picture() -> None:
    house = House()
    house.add(FILES[0])
    with pytest.raises(InvalidArgument) as caught:
        house.captions.update("ink", digest_of(FILES[0].data), " \n", "e1")
    assert caught.value.reason == "CAPTION_EMPTY"
    with pytest.raises(NotFound) as missing:
        house.captions.update("ink", "0" * 64, "words", "e2")
    assert missing.value.reason == "IMAGE_NOT_FOUND"


def test_one_request_identifier_cannot_write_two_texts() -> None:
    house = House()
    house.add(FILES[0])
    house.captions.update("ink", digest_of(FILES[0].data), "one", "e1")
    with pytest.raises(OperationConflict):
        house.captions.update("ink", digest_of(FILES[0].data), "two", "e1")


def test_a_dataset_is_created_once_and_a_retry_returns_it() -> None:
    house = House()
    again = house.catalogue.create("ink", FIELDS, "first")
    assert again == house.catalogue.get("ink")
    assert (again.fields, again.image_count) == (FIELDS, 0)
    with pytest.raises(AlreadyExists) as caught:
        house.catalogue.create("ink", FIELDS, "second")
    assert caught.value.reason == "DATASET_EXISTS"


@pytest.mark.parametrize("dataset_id", ["", "Ink", "../ink", "a/b", "1ink", "i" * 64])
def test_a_bad_identifier_is_refused(dataset_id: str) -> None:
    with pytest.raises(InvalidArgument):
        House().catalogue.create(dataset_id, FIELDS, "r")


def test_a_long_field_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgument) as caught:
        House().catalogue.create("other", replace(FIELDS, trigger_word="w" * 65), "r")
    assert caught.value.field == "dataset.trigger_word"


def test_datasets_are_listed_by_identifier_in_pages() -> None:
    house = House()
    for dataset_id in ("b", "a", "c"):
        house.catalogue.create(dataset_id, FIELDS, dataset_id)
    assert [dataset.dataset_id for dataset in house.catalogue.list("", 3)] == ["a", "b", "c"]
    assert [dataset.dataset_id for dataset in house.catalogue.list("c", 3)] == ["ink"]


def test_pictures_are_listed_in_order_of_import_in_pages() -> None:
    house = House()
    for file in FILES:
        house.add(file)
    first, more = house.pictures.list("ink", 0, 2)
    rest, end = house.pictures.list("ink", 2, 2)
    assert [picture.picture.file_name for picture in (*first, *rest)] == ["00.png", "01.png", "02.png"]
    assert (more, end) == (True, False)


def test_a_download_gives_the_file_as_imported_but_only_to_its_dataset() -> None:
    house = House()
    house.add(FILES[0])
    house.catalogue.create("other", FIELDS, "other")
    digest = digest_of(FILES[0].data)
    assert b"".join(house.pictures.open("ink", digest)) == FILES[0].data
    with pytest.raises(NotFound):
        house.pictures.open("other", digest)
    with pytest.raises(NotFound) as caught:
        house.pictures.open("none", digest)
    assert caught.value.reason == "DATASET_NOT_FOUND"
