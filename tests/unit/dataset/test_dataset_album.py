from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from terroir.common.clock import FixedClock
from terroir.dataset.album import SNAPSHOT_EVERY, Album, Albums, Change
from terroir.dataset.model import CaptionEdit, CaptionKind, Gate, Picture, Unreadable
from terroir.store.blobs import Blobs
from terroir.store.interface import ObjectStore
from terroir.store.obstore_driver import MemoryStore

DIGESTS = ["a" * 64, "b" * 64, "c" * 64]


def albums(store: ObjectStore) -> Albums:
    """A process that has read nothing yet."""
    return Albums(store, Blobs(store), FixedClock())


def picture(digest: str, name: str = "a.png") -> Picture:
    return Picture(digest, name, 1, unreadable=Unreadable(Gate.DAMAGED, 0.0, 1.0, "damaged"))


def edit(digest: str, kind: CaptionKind, text: str) -> Change:
    return Change(captions=(CaptionEdit(digest, kind, text),))


changes = st.builds(
    Change,
    st.lists(st.builds(picture, st.sampled_from(DIGESTS), st.sampled_from(["a.png", "b.png"])), max_size=2).map(tuple),
    st.lists(
        st.builds(CaptionEdit, st.sampled_from(DIGESTS), st.sampled_from(CaptionKind), st.text(min_size=1, max_size=3)),
        max_size=2,
    ).map(tuple),
)


@given(st.lists(changes, max_size=8), st.integers(0, 8))
def test_a_snapshot_and_the_rest_fold_to_the_same_state_as_everything(log: list[Change], at: int) -> None:
    whole = Album().advanced(len(log), log)
    part = Album().advanced(at, log[:at])
    assert Album().advanced(at, [part.whole()]).advanced(len(log), log[at:]) == whole


@given(st.lists(changes, max_size=4))
def test_a_repeated_change_of_pictures_and_drafts_changes_nothing(log: list[Change]) -> None:
    again = [
        Change(change.pictures, tuple(e for e in change.captions if e.kind is CaptionKind.TAGGER)) for change in log
    ]
    assert Album().advanced(1, [*log, *again]) == Album().advanced(1, log)


def test_a_cold_reader_sees_through_snapshots_what_a_warm_one_sees() -> None:
    store = MemoryStore()
    warm = albums(store)
    for number in range(2 * SNAPSHOT_EVERY + 5):
        album = warm.append("ink", Change(pictures=(picture(f"{number:064x}"),)), op_id=f"op-{number}")
    assert albums(store).load("ink") == album
    assert list(album.pictures) == [f"{number:064x}" for number in range(2 * SNAPSHOT_EVERY + 5)]


def test_a_cold_reader_reads_only_the_documents_since_the_snapshot() -> None:
    store = _CountingStore()
    writer = albums(store)
    for number in range(3 * SNAPSHOT_EVERY + 2):
        writer.append("ink", Change(pictures=(picture(f"{number:064x}"),)), op_id=f"op-{number}")
    store.reads = 0
    albums(store).load("ink")
    assert store.reads <= SNAPSHOT_EVERY + 10


def test_writers_in_several_processes_lose_nothing() -> None:
    store = MemoryStore()
    count = SNAPSHOT_EVERY

    def write(writer: int) -> None:
        mine = albums(store)
        for number in range(count):
            digest = f"{writer * count + number:064x}"
            mine.append("ink", Change(pictures=(picture(digest),)), op_id=digest)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert set(albums(store).load("ink").pictures) == {f"{number:064x}" for number in range(4 * count)}


def test_an_operation_that_is_repeated_counts_once() -> None:
    books = albums(MemoryStore())
    human = edit(DIGESTS[0], CaptionKind.HUMAN, "mine")
    first = books.append("ink", human, op_id="one")
    books.append("ink", edit(DIGESTS[0], CaptionKind.HUMAN, "newer"), op_id="two")
    again = books.append("ink", human, op_id="one")
    caption = again.caption(DIGESTS[0])
    assert (first.number, again.number) == (1, 2)
    assert caption is not None
    assert caption.text == "newer"


def test_a_human_text_counts_before_a_sidecar_and_a_sidecar_before_a_draft() -> None:
    log = [edit(DIGESTS[0], CaptionKind.TAGGER, "draft")]
    assert _text(log) == ("draft", "draft", CaptionKind.TAGGER)
    log.append(edit(DIGESTS[0], CaptionKind.HUMAN, "mine"))
    assert _text(log) == ("mine", "draft", CaptionKind.HUMAN)
    log.append(edit(DIGESTS[0], CaptionKind.SIDECAR, "file"))
    assert _text(log) == ("mine", "draft", CaptionKind.HUMAN)
    assert _text([log[0], log[2]]) == ("file", "draft", CaptionKind.SIDECAR)


def _text(log: list[Change]) -> tuple[str, str, CaptionKind]:
    caption = Album().advanced(1, log).caption(DIGESTS[0])
    assert caption is not None
    return caption.text, caption.draft, caption.source


class _CountingStore(MemoryStore):
    reads = 0

    def get(self, key: str) -> bytes:
        self.reads += 1
        return super().get(key)
