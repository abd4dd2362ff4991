from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random

import pytest
from dataset_files import digest_of, drawn, encoded, png_header
from hypothesis import given, settings
from hypothesis import strategies as st
from import_client import LIMITS, File, Server, chunked, import_files, send, verdicts, wanted

from terroir.common.errors import TerroirError
from terroir.dataset.album import Album
from terroir.dataset.model import Gate, Verdict
from terroir.dataset.offers import Chunk, Offer, OffersDone, ToClient

PICTURES = [File(f"{index:02}.png", encoded(drawn(index)), f"caption {index}") for index in range(5)]
BAD = [
    File("notes.png", b"a text file named .png"),
    File("bomb.png", png_header(50_000, 50_000)),
    File("cut.jpg", encoded(drawn(9), "JPEG")[:900]),
    File("empty.png", b""),
]
ALL = [*PICTURES, *BAD]


def contents(album: Album) -> tuple[object, object]:
    """An album without its order."""
    return dict(album.pictures), {digest: dict(edits) for digest, edits in album.captions.items()}


EXPECTED = Server()
asyncio.run(import_files(EXPECTED, ALL))


def test_good_and_bad_files_all_get_a_verdict_and_are_recorded() -> None:
    server = Server()
    found = {judged.picture.picture.file_name: judged for judged in verdicts(asyncio.run(import_files(server, ALL)))}
    assert {name: found[name].picture.verdict for name in found} == {
        **dict.fromkeys(["00.png", "01.png", "02.png", "03.png", "04.png"], Verdict.PASS),
        **dict.fromkeys(["notes.png", "bomb.png", "cut.jpg", "empty.png"], Verdict.REJECT),
    }
    gates = {name: [finding.gate for finding in found[name].picture.findings] for name in found}
    assert gates["notes.png"] == gates["empty.png"] == [Gate.NOT_AN_IMAGE]
    assert (gates["bomb.png"], gates["cut.jpg"]) == ([Gate.PIXEL_LIMIT], [Gate.TRUNCATED])
    assert len(server.albums.load("ink").pictures) == len(ALL)
    caption = found["03.png"].picture.caption
    assert caption is not None
    assert (caption.text, caption.source, caption.draft) == ("caption 3", "sidecar", "")


def test_originals_are_stored_untouched() -> None:
    for file in ALL:
        assert EXPECTED.blobs.get(digest_of(file.data)) == file.data


def test_a_second_import_sends_nothing_and_changes_nothing() -> None:
    server = Server()
    asyncio.run(import_files(server, ALL))
    before = server.albums.load("ink")
    answers = asyncio.run(import_files(server, ALL))
    assert wanted(answers) == []
    assert [judged.already_present for judged in verdicts(answers)] == [True] * len(ALL)
    assert server.albums.load("ink") == before


def test_one_content_under_two_names_gets_a_verdict_for_each_offer_and_is_sent_once() -> None:
    twin = replace(PICTURES[0], name="twin.png")
    answers = asyncio.run(import_files(Server(), [PICTURES[0], twin, PICTURES[1], twin]))
    first = digest_of(twin.data)
    assert wanted(answers).count(first) == 1
    present = [judged.already_present for judged in verdicts(answers) if judged.picture.picture.digest == first]
    assert present == [False, True, True]


def test_a_changed_sidecar_replaces_the_caption_without_sending_the_picture() -> None:
    server = Server()
    asyncio.run(import_files(server, PICTURES[:1]))
    answers = asyncio.run(import_files(server, [replace(PICTURES[0], caption=" better words\n")]))
    (judged,) = verdicts(answers)
    assert wanted(answers) == []
    assert judged.picture.caption is not None
    assert judged.picture.caption.text == "better words"


def test_an_import_without_a_sidecar_keeps_the_caption_that_is_there() -> None:
    server = Server()
    asyncio.run(import_files(server, PICTURES[:1]))
    (judged,) = verdicts(asyncio.run(import_files(server, [replace(PICTURES[0], caption="")])))
    assert judged.picture.caption is not None
    assert judged.picture.caption.text == "caption 0"


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_order_duplication_and_interruption_give_the_same_dataset(data: st.DataObject) -> None:
    server = Server()
    for _ in range(data.draw(st.integers(0, 2), label="broken imports")):
        some = data.draw(st.lists(st.sampled_from(ALL), min_size=1, max_size=12))
        die_after = data.draw(st.integers(1, 8))
        asyncio.run(import_files(server, some, die_after=die_after))
        if data.draw(st.booleans(), label="restart"):
            server = Server(store=server.store)
    order = data.draw(st.permutations(ALL)) + data.draw(st.lists(st.sampled_from(ALL), max_size=4))

    chance = Random(data.draw(st.integers(0, 2**32)))

    def shuffle(chunks: list[Chunk]) -> list[Chunk]:
        return chance.sample(chunks, len(chunks)) + chunks[: chance.randrange(3)]

    window = data.draw(st.sampled_from([1, 20_000, 1_000_000]))
    server = Server(store=server.store, limits=replace(LIMITS, window_bytes=window))
    answers = asyncio.run(import_files(server, order, chunk_bytes=data.draw(st.integers(700, 9000)), shuffle=shuffle))
    assert len(verdicts(answers)) == len(order)
    assert contents(server.albums.load("ink")) == contents(EXPECTED.albums.load("ink"))


def test_what_arrived_before_the_kill_is_not_asked_for_again() -> None:
    server = Server()
    broken = asyncio.run(import_files(server, PICTURES, die_after=7))
    kept = {judged.picture.picture.digest for judged in verdicts(broken)}
    resumed = asyncio.run(import_files(Server(store=server.store), PICTURES))
    assert kept
    assert kept.isdisjoint(wanted(resumed))
    assert len(verdicts(resumed)) == len(PICTURES)


def test_a_content_that_was_stored_but_not_recorded_is_judged_without_being_sent() -> None:
    server = Server()
    server.blobs.put(PICTURES[0].data)
    answers = asyncio.run(import_files(server, PICTURES[:1]))
    assert wanted(answers) == []
    assert [judged.already_present for judged in verdicts(answers)] == [False]


def test_a_raised_pixel_limit_reads_on_the_next_import_what_was_refused() -> None:
    large = File("large.png", encoded(drawn(3, 200, 200)), "words")
    server = Server(limits=replace(LIMITS, pixel_limit=30_000, max_pictures=1))
    (refused,) = verdicts(asyncio.run(import_files(server, [large])))
    assert [finding.gate for finding in refused.picture.findings] == [Gate.PIXEL_LIMIT]
    raised = Server(store=server.store, limits=replace(LIMITS, max_pictures=1))
    answers = asyncio.run(import_files(raised, [large]))
    assert wanted(answers) == []
    assert [(judged.picture.verdict, judged.already_present) for judged in verdicts(answers)] == [(Verdict.PASS, True)]
    assert raised.albums.load("ink").pictures[digest_of(large.data)].measured is not None


def test_two_imports_at_once_give_one_of_each_picture() -> None:
    server = Server()

    async def both() -> None:
        await asyncio.gather(import_files(server, ALL), import_files(server, list(reversed(ALL))))

    asyncio.run(both())
    assert contents(server.albums.load("ink")) == contents(EXPECTED.albums.load("ink"))


def test_contents_are_asked_for_only_while_the_window_has_room() -> None:
    offers = [file.offer for file in PICTURES]
    window = offers[0].size_bytes + offers[1].size_bytes
    server = Server(limits=replace(LIMITS, window_bytes=window))
    answers: list[ToClient] = []
    with pytest.raises(TerroirError) as caught:
        asyncio.run(send(server, *offers, into=answers))
    assert wanted(answers) == [offers[0].digest, offers[1].digest]
    assert caught.value.metadata["missing"] == "5"


def test_a_picture_larger_than_the_window_goes_alone() -> None:
    server = Server(limits=replace(LIMITS, window_bytes=1))
    assert len(verdicts(asyncio.run(import_files(server, PICTURES)))) == len(PICTURES)


def fails(server: Server, *messages: Offer | Chunk | OffersDone) -> TerroirError:
    with pytest.raises(TerroirError) as caught:
        asyncio.run(send(server, *messages))
    return caught.value


GOOD = PICTURES[0].offer


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (replace(GOOD, file_name="../cover.png"), "INVALID_FILE_NAME"),
        (replace(GOOD, file_name=".."), "INVALID_FILE_NAME"),
        (replace(GOOD, file_name="/etc/passwd"), "INVALID_FILE_NAME"),
        (replace(GOOD, file_name="a\\b.png"), "INVALID_FILE_NAME"),
        (replace(GOOD, file_name=""), "INVALID_FILE_NAME"),
        (replace(GOOD, file_name="a\x00.png"), "INVALID_FILE_NAME"),
        (replace(GOOD, file_name="n" * 256), "INVALID_FILE_NAME"),
        (replace(GOOD, digest="ABC"), "INVALID_DIGEST"),
        (replace(GOOD, digest=GOOD.digest.upper()), "INVALID_DIGEST"),
        (replace(GOOD, size_bytes=64 * 1024 * 1024 + 1), "PICTURE_TOO_LARGE"),
        (replace(GOOD, size_bytes=-1), "PICTURE_TOO_LARGE"),
    ],
)
def test_an_unacceptable_offer_ends_the_stream_with_a_stable_reason(offer: Offer, reason: str) -> None:
    server = Server()
    assert fails(server, offer).reason == reason
    assert server.albums.load("ink").pictures == {}


def test_a_caption_over_the_limit_is_refused() -> None:
    assert fails(Server(), replace(GOOD, caption="x" * 2001)).field == "offer.caption"


def test_other_bytes_than_offered_are_refused_and_not_kept() -> None:
    server = Server()
    wrong = Chunk(GOOD.digest, 0, bytes(GOOD.size_bytes))
    assert fails(server, GOOD, wrong, OffersDone()).reason == "DIGEST_MISMATCH"
    assert not server.blobs.exists(GOOD.digest)
    assert server.albums.load("ink").pictures == {}


def test_chunks_that_nobody_asked_for_are_refused() -> None:
    assert fails(Server(), chunked(b"what?", 9)[0]).reason == "CHUNK_NOT_WANTED"


def test_a_stream_that_ends_before_its_pictures_is_incomplete() -> None:
    first, second = PICTURES[:2]
    server = Server()
    error = fails(server, first.offer, *chunked(first.data, 900), second.offer, chunked(second.data, 900)[0])
    assert (error.reason, error.metadata["missing"]) == ("IMPORT_INCOMPLETE", "1")
    assert list(server.albums.load("ink").pictures) == [first.offer.digest]


def test_an_offer_after_the_end_of_offers_is_refused() -> None:
    assert fails(Server(), GOOD, OffersDone(), PICTURES[1].offer).reason == "OFFER_AFTER_DONE"


def test_an_import_of_nothing_ends_at_once() -> None:
    assert asyncio.run(send(Server(), OffersDone())) == []


def test_a_dataset_takes_no_more_pictures_than_its_limit() -> None:
    server = Server(limits=replace(LIMITS, max_pictures=2))
    asyncio.run(import_files(server, PICTURES[:2]))
    assert fails(server, PICTURES[2].offer).reason == "TOO_MANY"


def test_too_many_streams_are_refused_with_a_retry_hint() -> None:
    server = Server(limits=replace(LIMITS, max_streams=1))

    async def second_stream() -> TerroirError:
        first = server.importer.run("ink", _never())
        waiting = asyncio.create_task(anext(first))
        await asyncio.sleep(0)
        with pytest.raises(TerroirError) as caught:
            await anext(server.importer.run("ink", _never()))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return caught.value

    error = asyncio.run(second_stream())
    assert error.reason == "IMPORTS_BUSY"
    assert error.retry_after_seconds == 5.0
    assert len(verdicts(asyncio.run(import_files(server, PICTURES[:1])))) == 1


async def _never() -> AsyncIterator[OffersDone]:
    await asyncio.Event().wait()
    yield OffersDone()


def test_imports_are_counted_by_verdict_and_bytes() -> None:
    server = Server()
    asyncio.run(import_files(server, ALL))
    asyncio.run(import_files(server, ALL))
    count = server.registry.get_sample_value
    assert count("terroir_dataset_images_imported_total", {"verdict": "pass"}) == len(PICTURES)
    assert count("terroir_dataset_images_imported_total", {"verdict": "reject"}) == len(BAD)
    assert count("terroir_dataset_received_bytes_total") == sum(len(file.data) for file in ALL)
