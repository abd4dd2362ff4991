"""Presets and samples of an adapter: kept in its state, with who changed them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from terroir.common.errors import InvalidArgument, PermissionDenied
from terroir.registry.errors import AdapterNotFound, SampleInvalid, SampleNotFound, VersionNotFound
from terroir.registry.index.fold import Index
from terroir.registry.moving.adapter_presets import PresetBook
from terroir.registry.moving.presets import Preset
from terroir.registry.moving.samples import MAX_SAMPLES, Sample
from terroir.registry.moving.state import States, change_in
from terroir.store.documents import Collection
from terroir.store.errors import EtagMismatch, OperationConflict
from tests.unit.registry.domain_kit import Domain
from tests.unit.registry.people import ANA, GUEST
from tests.unit.registry.test_samples import PICTURE, encoded

INK = Preset("Ink", ("jnsty",), "jnsty, {prompt}", "photo", 0.8)
PNG = encoded("PNG")


def book_of(domain: Domain) -> PresetBook:
    """The presets of one replica."""
    states = States(Collection(domain.store, "aliases", domain.clock))
    return PresetBook(states, domain.adapters, domain.blobs, Index())


@pytest.fixture
def book(domain: Domain) -> PresetBook:
    """Presets of a registry with one adapter."""
    domain.publish("jiangnan", "op")
    return book_of(domain)


def test_an_adapter_has_no_presets_until_somebody_sets_some(book: PresetBook) -> None:
    found = book.get("jiangnan")
    assert (found.presets, found.samples, found.etag) == ((), (), "")


def test_presets_and_samples_are_read_on_every_replica_and_do_not_disturb_each_other(
    book: PresetBook, replica: Domain
) -> None:
    sample = book.add_sample("jiangnan", PNG, ANA, op_id="s", caption="a boat", version="adapters/jiangnan/versions/1")
    assert sample == Sample(hashlib.sha256(PNG).hexdigest(), "image/png", *PICTURE.size, "a boat", 1)
    set_by_other = book_of(replica).set("jiangnan", [INK, Preset("Bold")], ANA, op_id="p")
    assert (set_by_other.presets, set_by_other.samples) == ((INK, Preset("Bold")), (sample,))
    assert book.get("jiangnan") == set_by_other
    assert book_of(replica).sample("jiangnan", sample.digest) == (sample, PNG)


def test_every_change_tells_who_made_it(book: PresetBook, domain: Domain) -> None:
    book.set("jiangnan", [INK], ANA, op_id="p")
    book.set("jiangnan", [INK, Preset("Bold")], ANA, op_id="q")
    book.add_sample("jiangnan", PNG, ANA, op_id="s")
    history = States(Collection(domain.store, "aliases", domain.clock)).history("jiangnan")
    told = [(c.action, c.actor, c.request_id, c.before, c.after) for c in (change_in(d.body) for d in history)]
    assert told[:2] == [
        ("set_presets", "local:ana", "p", "", "Ink"),
        ("set_presets", "local:ana", "q", "Ink", "Ink, Bold"),
    ]
    assert told[2][:2] == ("add_sample", "local:ana")
    assert "40x24" in told[2][4]


def test_a_stale_etag_refuses_a_lost_update_and_a_retry_is_done_once(book: PresetBook, replica: Domain) -> None:
    read = book.set("jiangnan", [INK], ANA, op_id="p")
    first = book.set("jiangnan", [], ANA, op_id="q", etag=read.etag)
    assert book_of(replica).set("jiangnan", [], ANA, op_id="q", etag=read.etag) == first
    with pytest.raises(EtagMismatch):
        book.set("jiangnan", [INK], ANA, op_id="r", etag=read.etag)
    with pytest.raises(OperationConflict):
        book.set("jiangnan", [replace(INK, weight=1.0)], ANA, op_id="q")


def test_beyond_the_limit_the_oldest_sample_gives_way_and_is_no_longer_found(book: PresetBook) -> None:
    pictures = [encoded("PNG", PICTURE.resize((8 + number, 8))) for number in range(MAX_SAMPLES + 1)]
    for number, picture in enumerate(pictures):
        book.add_sample("jiangnan", picture, ANA, op_id=str(number))
    assert len(book.get("jiangnan").samples) == MAX_SAMPLES
    assert book.get("jiangnan").samples[0].width == 8 + MAX_SAMPLES
    with pytest.raises(SampleNotFound):
        book.sample("jiangnan", hashlib.sha256(pictures[0]).hexdigest())


def test_what_is_wrong_is_refused_and_leaves_nothing(book: PresetBook, domain: Domain) -> None:
    domain.publish("tea", "op2")
    for call, refusal in (
        (lambda: book.set("none", [INK], ANA, op_id="a"), AdapterNotFound),
        (lambda: book.get("none"), AdapterNotFound),
        (lambda: book.add_sample("none", PNG, ANA, op_id="b"), AdapterNotFound),
        (lambda: book.sample("jiangnan", "a" * 64), SampleNotFound),
        (lambda: book.sample("jiangnan", "../x"), InvalidArgument),
        (lambda: book.set("jiangnan", [INK, INK], ANA, op_id="c"), InvalidArgument),
        (lambda: book.set("jiangnan", [INK], GUEST, op_id="d"), PermissionDenied),
        (lambda: book.add_sample("jiangnan", PNG, GUEST, op_id="e"), PermissionDenied),
        (lambda: book.add_sample("jiangnan", b"text", ANA, op_id="f"), SampleInvalid),
        (lambda: book.add_sample("jiangnan", PNG, ANA, op_id="g", caption="x" * 501), InvalidArgument),
        (
            lambda: book.add_sample("jiangnan", PNG, ANA, op_id="h", version="adapters/jiangnan/versions/9"),
            VersionNotFound,
        ),
        (lambda: book.add_sample("jiangnan", PNG, ANA, op_id="i", version="adapters/tea/versions/1"), InvalidArgument),
    ):
        with pytest.raises(refusal):
            call()
    assert book.get("jiangnan").etag == ""
