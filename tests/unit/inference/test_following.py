"""The watch across everything that can end it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from terroir.common.errors import InvalidArgument, TerroirError, Unavailable
from terroir.inference.adapters import following
from terroir.inference.adapters.following import Follower
from terroir.inference.adapters.sources import Change, ChangeKind
from tests.unit.inference.tier_kit import Tiers, settled


class Reacting:
    """Notes what it hears; fails once at a name that it is told to fail at."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.begins: list[bool] = []
        self.fails_at = ""

    async def react(self, change: Change) -> None:
        if change.name == self.fails_at:
            self.fails_at = ""
            raise Unavailable("the registry stopped just now")
        self.heard.append(change.name)

    async def begun(self, *, missed: bool) -> None:
        self.begins.append(missed)


class Watched:
    """A follower over a registry whose watches tell what the test says."""

    def __init__(self, folder: Path) -> None:
        self.tiers = Tiers(folder)
        self.reacting = Reacting()
        self.pauses: list[float] = []
        self.follower = Follower(
            self.tiers.registry, self.reacting, self.tiers.metrics, pause=self.pause, random_share=lambda: 1.0
        )

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    def tells(self, *messages: Change | TerroirError, stays: bool = False) -> None:
        """What one more watch tells before it ends, or stays open."""

        async def watch() -> AsyncGenerator[Change]:
            for message in messages:
                if isinstance(message, TerroirError):
                    raise message
                yield message
            if stays:
                await asyncio.Event().wait()

        self.tiers.registry.told.append(watch)

    def follow(self, until: Callable[[], bool]) -> None:
        """Run until the condition holds."""

        async def scenario() -> None:
            task = asyncio.create_task(self.follower.run())
            await settled(lambda: until() or task.done())
            if task.done():
                task.result()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(scenario())


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def change(number: int) -> Change:
    return Change(f"j{number}", ChangeKind.PUBLISHED, f"adapters/a/versions/{number}")


def test_it_goes_on_where_it_was_when_a_connection_ends(watched: Watched) -> None:
    watched.tells(Change("j0"), change(1), Unavailable("reset"))
    watched.tells(Change("j1"), change(2))
    watched.tells(Change("j2"), stays=True)
    watched.follow(lambda: len(watched.tiers.registry.watches) == 3)
    assert watched.tiers.registry.watches == ["", "j1", "j2"]
    assert watched.reacting.heard == [change(1).name, change(2).name]
    assert watched.reacting.begins == [False, False, False]


def test_a_change_whose_reaction_failed_is_heard_again(watched: Watched) -> None:
    watched.reacting.fails_at = change(2).name
    watched.tells(Change("j0"), change(1), change(2))
    watched.tells(Change("j1"), change(2), stays=True)
    watched.follow(lambda: len(watched.reacting.heard) == 2)
    assert watched.tiers.registry.watches == ["", "j1"]
    assert watched.reacting.heard == [change(1).name, change(2).name]


@pytest.mark.parametrize("reason", ["WATCH_TOKEN_INVALID", "WATCH_TOKEN_AHEAD"])
def test_a_place_that_is_lost_is_given_up_and_what_was_missed_is_looked_at(watched: Watched, reason: str) -> None:
    watched.tells(Change("j7"), Unavailable("reset"))
    watched.tells(InvalidArgument("another store", reason=reason))
    watched.tells(Change("j0"), stays=True)
    watched.follow(lambda: len(watched.reacting.begins) == 2)
    assert watched.tiers.registry.watches == ["", "j7", ""]
    assert watched.reacting.begins == [False, True]


def test_pauses_double_to_a_bound_and_begin_again_after_a_success(watched: Watched) -> None:
    for _ in range(8):
        watched.tells(Unavailable("down"))
    watched.tells(Change("j0"))
    watched.tells(Change("j0"), stays=True)
    with capture_logs() as logs:
        watched.follow(lambda: len(watched.reacting.begins) == 2)
    assert [log["reason"] for log in logs if log["log_level"] == "warning"] == ["UNAVAILABLE", "ENDED"]
    assert watched.pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 0.1]


def test_silence_counts_as_a_lost_connection(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "SILENCE_SECONDS", 0.01)
    watched.tells(Change("j0"), stays=True)
    watched.tells(Change("j0"), Change("j0"))
    watched.tells(Unavailable("end of the test"))
    watched.follow(lambda: len(watched.tiers.registry.watches) >= 3)
    assert watched.reacting.begins == [False, False]


def test_connected_says_whether_changes_are_heard_now(watched: Watched) -> None:
    assert not watched.follower.connected
    seen: list[tuple[bool, float]] = []

    def note() -> bool:
        seen.append((watched.follower.connected, watched.tiers.counted("registry_watch_connected")))
        return seen[-1][0]

    watched.tells(Change("j0"), stays=True)
    watched.follow(note)
    assert seen[-1] == (True, 1.0)
    assert not watched.follower.connected and watched.tiers.counted("registry_watch_connected") == 0
