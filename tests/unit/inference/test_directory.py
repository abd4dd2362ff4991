"""Names while the registry answers, while it does not, and after."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from terroir.common.errors import DeadlineExceeded, InvalidArgument, NotFound, TerroirError, Unavailable
from terroir.inference.adapters import directory as directory_module
from terroir.inference.adapters.sources import Recipe, VersionInfo
from terroir.inference.errors import RegistryUnreachable
from tests.unit.inference.tier_kit import Tiers, small_file, version_name


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    return Tiers(tmp_path)


def ask(tiers: Tiers, name: str) -> tuple[str, str]:
    """Version and warning."""
    known = asyncio.run(tiers.directory.version(name))
    return known.value.name, known.warning


@pytest.mark.parametrize(
    "failure", [Unavailable("store down", reason="STORE_UNAVAILABLE"), DeadlineExceeded("too late")]
)
def test_a_name_that_was_seen_is_served_with_its_age_when_the_registry_gives_no_answer(
    tiers: Tiers, failure: TerroirError
) -> None:
    tiers.registry.publish(version_name(1), small_file(1))
    assert ask(tiers, "adapters/a") == (version_name(1), "")
    tiers.clock.advance(90)
    tiers.registry.failure = failure
    version, warning = ask(tiers, "adapters/a")
    assert version == version_name(1)
    assert "can't be reached" in warning and "adapters/a" in warning and "90 s ago" in warning
    assert ask(tiers, version_name(1))[1], "the version's own name was learned with the alias"
    assert tiers.counted("remembered_lookups_total") == 2


def test_every_request_asks_again_so_a_publish_is_used_at_once(tiers: Tiers) -> None:
    for number in (1, 2):
        tiers.registry.publish(version_name(number), small_file(number))
        assert ask(tiers, "adapters/a") == (version_name(number), "")


def test_a_name_that_was_never_seen_fails_and_says_what_to_do(tiers: Tiers) -> None:
    tiers.registry.go()
    for work in (tiers.directory.version("adapters/a"), tiers.directory.recipe("regions/CN")):
        with pytest.raises(RegistryUnreachable) as refused:
            asyncio.run(work)
        assert refused.value.reason == "REGISTRY_UNREACHABLE" and refused.value.retry_after_seconds
        assert "try again" in str(refused.value) and "SERVICE_UNREACHABLE" in str(refused.value)


def test_a_name_that_the_registry_denies_is_forgotten(tiers: Tiers) -> None:
    tiers.registry.publish(version_name(1), small_file(1))
    ask(tiers, "adapters/a")
    tiers.registry.aliases.clear()
    with pytest.raises(NotFound):
        ask(tiers, "adapters/a")
    tiers.registry.go()
    with pytest.raises(RegistryUnreachable):
        ask(tiers, "adapters/a")


def test_a_withdrawal_that_was_heard_of_under_one_name_counts_for_all(tiers: Tiers) -> None:
    version = tiers.registry.publish(version_name(1), small_file(1))
    ask(tiers, "adapters/a")
    tiers.registry.versions[version.name] = replace(version, withdrawn="a mistake")
    ask(tiers, version.name)
    tiers.registry.go()
    assert asyncio.run(tiers.directory.version("adapters/a")).value.withdrawn == "a mistake"


def test_other_errors_of_the_registry_are_passed_on(tiers: Tiers) -> None:
    tiers.registry.publish(version_name(1), small_file(1))
    ask(tiers, "adapters/a")
    tiers.registry.failure = InvalidArgument("no such form", reason="INVALID_NAME")
    with pytest.raises(InvalidArgument):
        ask(tiers, "adapters/a")


def test_a_region_keeps_its_recipe_and_chain(tiers: Tiers) -> None:
    recipe = Recipe((("adapters/a", 0.5),), "misty", "", ("regions/CN-ZJ", "regions/CN"))
    tiers.registry.recipes["regions/CN-ZJ"] = recipe
    assert asyncio.run(tiers.directory.recipe("regions/CN-ZJ")).warning == ""
    tiers.registry.go()
    known = asyncio.run(tiers.directory.recipe("regions/CN-ZJ"))
    assert known.value == recipe and known.warning


def test_a_registry_that_is_silent_holds_up_known_names_for_a_moment_only(
    tiers: Tiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiers.registry.publish(version_name(1), small_file(1))
    ask(tiers, "adapters/a")

    async def silent(_name: str) -> VersionInfo:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(tiers.registry, "version", silent)
    monkeypatch.setattr(directory_module, "_PATIENCE_SECONDS", 0.01)
    assert ask(tiers, "adapters/a")[1]


def test_memory_is_bounded_and_the_names_asked_for_longest_ago_go(
    tiers: Tiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "MAX_REMEMBERED", 4)
    for number in range(1, 9):
        tiers.registry.publish(version_name(number), small_file(1))
        ask(tiers, version_name(number))
    tiers.registry.go()
    assert ask(tiers, version_name(8))[1]
    with pytest.raises(RegistryUnreachable):
        ask(tiers, version_name(1))
