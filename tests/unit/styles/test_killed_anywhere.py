"""A registration ends well wherever its service is killed: at each of its calls to the world, before and after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from styles_kit import REQUEST, Killed, Room

from terroir.training.jobs.documents import JobState
from terroir.training.styles.admission import StyleRequest
from terroir.training.styles.model import PHASES, Phase, State

FROM_SOURCE = replace(
    REQUEST, dataset="", import_source="importSources/team", rights_statement="Ours.", assign_region=True
)


def room_for(request: StyleRequest, pictures: Path) -> Room:
    room = Room()
    room.sources.folders["team"] = pictures
    return room


def calls_of_a_life(request: StyleRequest, pictures: Path) -> int:
    """How often a process that is not killed calls the world, from the first step to the end."""
    room = room_for(request, pictures)
    registration, process = room.begin(request), room.replica()
    process.run(registration)
    room.work()
    process.run(registration)
    assert room.seen(registration).state is State.SUCCEEDED
    return process.fate.calls


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        (folder / f"{number}.png").write_bytes(b"a picture")
    return folder


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("request_", [replace(REQUEST, assign_region=True), FROM_SOURCE], ids=["dataset", "source"])
def test_a_service_killed_at_any_call_is_followed_by_one_that_finishes(
    request_: StyleRequest, pictures: Path, after: bool
) -> None:
    calls = calls_of_a_life(request_, pictures)
    assert calls > 60, "the table must have rows"
    for at in range(1, calls + 1):
        room = room_for(request_, pictures)
        registration, process = room.begin(request_), room.replica(at, after=after)
        with pytest.raises(Killed):
            process.run(registration)
            room.work()
            process.run(registration)
        ended = room.finish(registration)
        where = f"killed {'after' if after else 'before'} call {at}"
        assert ended.state is State.SUCCEEDED, (where, ended)
        assert [begun.phase for begun in ended.phases if begun.phase not in (Phase.TRAINING, Phase.PUBLISHING)] == [
            Phase.IMPORTING, Phase.CAPTIONING, Phase.FREEZING, Phase.QUEUED, Phase.STAGING
        ], where  # fmt: skip
        dataset = ended.wish.dataset
        assert room.datasets.versions == {dataset: [3]}, where
        assert room.datasets.captioned == {dataset: 3}, where
        (job,) = map(room.jobs.get, room.jobs.ids())
        assert (job.id, job.state, job.dataset_version) == (ended.job, JobState.SUCCEEDED, ended.dataset_version), where
        assert room.shelf.adapters == {"ink": ["CN-ZJ"]}, where
        assert [move[:2] for move in room.shelf.moves.values()] == [("ink@staging", "adapters/ink/versions/1")], where
        assert (room.shelf.recipes, room.shelf.recipe_changes) == ({"CN-ZJ": "ink@staging"}, 1), where


def test_phases_are_told_in_their_order() -> None:
    assert PHASES[0] is Phase.IMPORTING and PHASES[-1] is Phase.STAGING and len(PHASES) == 8
