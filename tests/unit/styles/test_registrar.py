"""The registrar's threads: what is begun is found and led on without anybody asking."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from styles_kit import REQUEST, Room

from terroir.common.clock import SystemClock
from terroir.common.errors import Unavailable
from terroir.store.errors import StoreUnavailable
from terroir.training.styles.errors import ImportSourceUnknown, ImportSourceUnreadable
from terroir.training.styles.live import read_live
from terroir.training.styles.model import Phase, State
from terroir.training.styles.sources import ConfiguredSources


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the condition never became true"
        time.sleep(0.01)


def test_what_was_begun_is_led_to_its_job_and_after_it_to_its_end() -> None:
    room = Room(clock=SystemClock())  # type: ignore[arg-type]  # real time
    begun = room.begin()
    registrar = room.replica().registrar
    thread = threading.Thread(target=registrar.run)
    thread.start()
    try:
        until(lambda: bool(room.jobs.ids()))
        room.work()
        until(lambda: room.seen(begun).ended)
        later = room.begin(replace(REQUEST, style="tea"), "two")
        registrar.added(later)
        until(lambda: room.seen(later).phase is Phase.QUEUED)
    finally:
        registrar.stop()
        thread.join(10)
    assert room.seen(begun).state is State.SUCCEEDED and not thread.is_alive()


def test_a_step_ends_when_the_service_stops_and_the_next_service_goes_on() -> None:
    room = Room(clock=SystemClock())  # type: ignore[arg-type]  # real time
    begun = room.begin()
    registrar = room.replica().registrar
    captioning, go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        captioning.set()
        go_on.wait(10)

    room.datasets.before_picture = slowly
    thread = threading.Thread(target=registrar.run)
    thread.start()
    assert captioning.wait(10)
    registrar.stop()
    go_on.set()
    thread.join(10)
    until(lambda: room.datasets.captioning == 0)
    assert room.datasets.captioned == {"ink-pictures": 1}
    room.datasets.before_picture = lambda: None
    until(lambda: room.replica().run(begun) and room.seen(begun).phase is Phase.QUEUED)


def test_pictures_done_are_told_to_watchers() -> None:
    room = Room()
    begun = room.begin()
    room.replica().run(begun)
    live = read_live(room.store, begun)
    assert (live.done, live.total) == (3, 3)


class Bucket:
    """Files of others."""

    def __init__(self, files: dict[str, bytes], error: Exception | None = None) -> None:
        self.files, self.error = files, error

    def names(self) -> list[str]:
        if self.error:
            raise self.error
        return sorted(self.files)

    def read(self, name: str) -> bytes:
        return self.files[name]


def test_a_folder_is_read_where_it_is_and_a_buckets_files_are_copied_and_removed(tmp_path: Path) -> None:
    here = tmp_path / "pictures"
    here.mkdir()
    bucket = Bucket({"西湖.png": b"1", "a b.txt": b"a lake"})
    sources = ConfiguredSources({"here": str(here), "there": "s3://b/p"}, lambda place: bucket, lambda: tmp_path)
    with sources.opened("here") as folder:
        assert folder == here
    with sources.opened("there") as folder:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == bucket.files
    assert not folder.exists()
    assert list(sources) == ["here", "there"]


def test_a_source_that_cannot_be_read_says_who_can_mend_it(tmp_path: Path) -> None:
    denied = StoreUnavailable("can't list: access denied", "", "STORE_PERMISSION_DENIED")
    away = StoreUnavailable("can't list: connection refused", "", "STORE_UNREACHABLE")
    errors = {"s3://denied/p": denied, "s3://away/p": away}
    places = {"denied": "s3://denied/p", "away": "s3://away/p", "gone": str(tmp_path / "gone")}
    sources = ConfiguredSources(places, lambda place: Bucket({}, errors[place]), lambda: tmp_path)
    with pytest.raises(ImportSourceUnreadable, match="access denied"), sources.opened("denied"):
        pass
    with pytest.raises(StoreUnavailable, match="connection refused"), sources.opened("away"):
        pass
    with pytest.raises(ImportSourceUnreadable, match="is no folder here"), sources.opened("gone"):
        pass
    with pytest.raises(ImportSourceUnknown, match=r"did you mean gone\?.*there are away, denied, gone"):
        sources.ensure("gon")


def test_an_error_outside_of_steps_is_waited_out() -> None:
    room = Room(clock=SystemClock())  # type: ignore[arg-type]  # real time
    begun = room.begin()
    registrar = room.replica().registrar
    sound = registrar._registrations.logged
    broken = [Unavailable("the store is away")] * 2

    def logged(after: int = 0) -> object:
        if broken:
            raise broken.pop()
        return sound(after)

    registrar._registrations.logged = logged  # type: ignore[method-assign,assignment]  # fails twice
    thread = threading.Thread(target=registrar.run)
    thread.start()
    try:
        until(lambda: bool(room.jobs.ids()))
    finally:
        registrar.stop()
        thread.join(10)
    assert room.seen(begun).phase is Phase.QUEUED
