"""Registrations as documents: one at a time for a style, found by a log, safe to repeat."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from styles_kit import ANA, REQUEST, Room

from terroir.common.validation import ensure_name
from terroir.store.errors import OperationConflict
from terroir.training.styles.errors import RegistrationNotFound, StyleBusy
from terroir.training.styles.model import (
    Failure,
    Phase,
    PhaseBegin,
    Registration,
    State,
    Wish,
    body_of,
    registration_id_of,
    registration_of,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
WISHES = st.builds(
    Wish, style=TEXT, region=TEXT, dataset=TEXT, config_yaml=TEXT, creator=TEXT, import_source=TEXT,
    rights_statement=TEXT, trigger_word=TEXT, license=TEXT, assign_region=st.booleans(), traceparent=TEXT,
)  # fmt: skip
REGISTRATIONS = st.builds(
    Registration, id=TEXT, wish=WISHES, created_at=TEXT,
    phases=st.lists(st.builds(PhaseBegin, st.sampled_from(Phase), TEXT), min_size=1).map(tuple),
    state=st.sampled_from(State), dataset_version=TEXT, job=TEXT, adapter_version=TEXT,
    metrics=st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False)),
    cancel_requested=st.booleans(), failure=st.none() | st.builds(Failure, TEXT, TEXT), ended_at=TEXT, etag=TEXT,
)  # fmt: skip


@given(REGISTRATIONS)
def test_a_registration_is_read_as_it_was_written(registration: Registration) -> None:
    import json

    body = json.loads(json.dumps(body_of(registration)))
    assert registration_of(body, registration.etag) == registration


def test_a_request_repeated_gives_the_same_registration_and_another_wish_under_it_is_refused() -> None:
    room = Room()
    first = room.begin()
    assert room.begin() == first
    with pytest.raises(OperationConflict):
        room.begin(replace(REQUEST, config_yaml="lora_rank: 8\n"))
    done = room.finish(first)
    assert room.begin() == done, "a repeat after the end tells the end, and does not meet its own adapter"


def test_a_second_registration_of_a_style_is_refused_while_the_first_goes_on_and_told_where_it_is() -> None:
    room = Room()
    first = room.begin()
    with pytest.raises(StyleBusy, match=f"terroir style watch {first.name}") as refused:
        room.begin(request_id="two")
    assert refused.value.metadata == {"registration": first.name}
    room.registrations.end(first, State.FAILED, failure=Failure("X", "x"))
    second = room.begin(request_id="two")
    assert second.id != first.id
    assert [each.id for each in room.registrations.of_style("ink")] == [second.id, first.id]
    assert room.registrations.get("ink", first.id).state is State.FAILED, "the first is still to be read"
    assert room.registrations.newest("ink") == second


def test_of_two_that_begin_at_the_same_moment_one_wins() -> None:
    """Both saw the style free: the number of the document decides."""
    room = Room()
    wish = room.admission.checked(REQUEST, ANA)
    room.registrations.ensure_free("ink")
    room.registrations.begin(wish, "one", {})
    with pytest.raises(StyleBusy):
        room.registrations.begin(wish, "two", {})


def test_an_ended_registration_stays_as_it_is() -> None:
    room = Room()
    first = room.begin()
    ended = room.registrations.end(first, State.FAILED, failure=Failure("X", "x"))
    assert room.registrations.end(first, State.SUCCEEDED) == ended
    assert room.registrations.enter(first, Phase.CAPTIONING) == ended
    assert room.registrations.request_cancel(first) == ended
    room.begin(request_id="two")
    assert room.registrations.request_cancel(first) == ended, "and touches no later one"
    assert not room.registrations.newest("ink").cancel_requested


def test_a_phase_is_entered_from_the_one_before_and_once() -> None:
    room = Room()
    first = room.begin()
    captioning = room.registrations.enter(first, Phase.CAPTIONING)
    assert room.registrations.enter(first, Phase.CAPTIONING) == captioning
    assert room.registrations.enter(first, Phase.FREEZING).phase is Phase.CAPTIONING, "who looked earlier is behind"


def test_a_registration_that_was_announced_and_not_written_is_found_once_it_is() -> None:
    room = Room()
    room.registrations._log.append({"style": "tea", "id": "r-0"}, op_id="styles/tea/registrations/r-0")
    first = room.begin()
    assert [line.style for line in room.registrations.logged()] == ["tea", "ink"]
    assert [line.id for line in room.registrations.logged_before(None)] == [first.id, "r-0"]
    assert list(room.registrations.logged_before(1)) == []
    with pytest.raises(RegistrationNotFound):
        room.registrations.get("tea", "r-0")


@given(st.from_regex(r"\A[a-z][a-z0-9-]{0,62}\Z"), TEXT)
def test_every_registration_has_a_name_that_the_contract_accepts(style: str, request_id: str) -> None:
    registration_id = registration_id_of(style, request_id)
    name = f"styles/{style}/registrations/{registration_id}"
    parts = ensure_name(name, "name", "styles/{style}/registrations/{registration}")
    assert parts == {"style": style, "registration": registration_id}
    assert len(f"{name}/staging") <= 128, "it is the request_id of what it does"
