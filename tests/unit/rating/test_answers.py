"""People's answers: read from files row by row, kept by person, counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rating_kit import SUBJECT, answers, generated, made, real, sheets

from terroir._proto.training.v1 import rating_pb2 as pb
from terroir.client.ratings import prompts_for, read_answers
from terroir.common.clock import FixedClock
from terroir.common.errors import InvalidArgument
from terroir.store.errors import OperationConflict
from terroir.store.obstore_driver import MemoryStore
from terroir.training.jobs.attempts import Attempt
from terroir.training.jobs.documents import JobFailure, Jobs, JobState
from terroir.training.rating.errors import AnswersInvalid
from terroir.training.rating.forms import COLUMNS, form
from terroir.training.rating.gate import MIN_GENERATED_ANSWERS, Outcome, verdict_of
from terroir.training.rating.keeping import KeptDrawings
from terroir.training.rating.messages import answers_of, sheet_message
from terroir.training.rating.model import Answer, Kind
from terroir.training.rating.people import WAITING, people_on, take_up
from terroir.training.rating.scores import scores_of

HEAD = ",".join(COLUMNS)
SHEET = "ratingSheets/sheet-0"


def written(folder: Path, *rows: str, head: str = HEAD, encoding: str = "utf-8") -> Path:
    path = folder / "answers.csv"
    path.write_bytes("\r\n".join([head, *rows]).encode(encoding))
    return path


def test_a_filled_in_form_is_read_and_empty_rows_are_left_out(tmp_path: Path) -> None:
    text = form(SHEET, ["p01", "p02", "p03"]).replace(f"{SHEET},,p01,,", f"{SHEET},Ana,p01,real,yes")
    path = tmp_path / "form.csv"
    path.write_text(text.replace(f"{SHEET},,p03,,", f"{SHEET},Ana,p03,generated,no"), encoding="utf-8-sig")
    (found,) = read_answers(path)
    assert (found.sheet, found.rater) == (SHEET, "Ana")
    assert found.ratings == (
        pb.Rating(picture="p01", taken_for=pb.TAKEN_FOR_REAL, on_brand=pb.ON_BRAND_YES),
        pb.Rating(picture="p03", taken_for=pb.TAKEN_FOR_GENERATED, on_brand=pb.ON_BRAND_NO),
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_spreadsheets_make_of_a_form_is_read(tmp_path: Path, separator: str) -> None:
    row = f"{SHEET}, Bo ,P02,REAL,Yes ".replace(",", separator)
    (found,) = read_answers(written(tmp_path, row, head=HEAD.upper().replace(",", separator), encoding="utf-8-sig"))
    assert found.rater == "Bo"
    assert found.ratings[0] == pb.Rating(picture="p02", taken_for=pb.TAKEN_FOR_REAL, on_brand=pb.ON_BRAND_YES)


def test_several_people_may_share_a_file(tmp_path: Path) -> None:
    rows = [f"{SHEET},{name},p01,real,yes" for name in ("Ana", "吴")]
    assert [one.rater for one in read_answers(written(tmp_path, *rows))] == ["Ana", "吴"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (f"{SHEET},Ana,p01,maybe,yes", "line 2: real_or_generated is 'maybe'; write real or generated"),
        (f"{SHEET},Ana,p01,real,", "line 2: on_brand is ''; write yes or no"),
        (f"{SHEET},Ana,p01,,yes", "line 2: real_or_generated is ''"),
        (f"{SHEET},,p01,real,yes", "line 2: no rater"),
        ("sheet-0,Ana,p01,real,yes", "line 2: sheet is 'sheet-0'"),
        (f"{SHEET},Ana,p01,real,yes\r\n{SHEET},Ana,p01,real,no", "line 3: picture p01 twice"),
        (f"{SHEET},,p01,,", "holds no answer"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path: Path, row: str, told: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_answers(written(tmp_path, row))
    assert refused.value.reason == "RATINGS_INVALID" and told in str(refused.value)


def test_many_wrong_rows_are_counted(tmp_path: Path) -> None:
    rows = [f"{SHEET},Ana,p{n:02d},perhaps,yes" for n in range(9)]
    with pytest.raises(InvalidArgument, match=r"line 2: .* and 4 more"):
        read_answers(written(tmp_path, *rows))


def test_a_file_without_the_columns_or_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="lacks the columns on_brand"):
        read_answers(written(tmp_path, head=HEAD.replace(",on_brand", "")))
    with pytest.raises(InvalidArgument, match="save it as CSV UTF-8"):
        read_answers(written(tmp_path, f"{SHEET},吴,p01,real,yes", encoding="gbk"))
    with pytest.raises(InvalidArgument) as refused:
        read_answers(tmp_path / "none.csv")
    assert refused.value.reason == "RATINGS_UNREADABLE"


def test_the_service_checks_every_answer_itself() -> None:
    right = pb.Rating(picture="p01", taken_for=pb.TAKEN_FOR_REAL, on_brand=pb.ON_BRAND_NO)
    assert answers_of([right]) == {"p01": Answer(True, False)}
    wrong = [
        right,
        right,
        pb.Rating(picture="p02", on_brand=pb.ON_BRAND_NO),
        pb.Rating(picture="p03", taken_for=pb.TAKEN_FOR_REAL),
        pb.Rating(picture="x" * 5000, on_brand=9),
    ]  # type: ignore[arg-type]  # no such value
    with pytest.raises(AnswersInvalid) as refused:
        answers_of(wrong)
    told = str(refused.value)
    assert "answer 2: picture 'p01' twice" in told and "answer 3: picture 'p02' is neither real nor generated" in told
    assert "answer 4: picture 'p03' is neither on-brand nor not" in told and len(told) < 400


def test_answers_about_other_pictures_or_about_none_are_refused() -> None:
    house = sheets()
    sheet = made(house=house)
    with pytest.raises(AnswersInvalid, match="p99: no such pictures on ratingSheets/"):
        house.submit(sheet.id, "Ana", {"p99": Answer(True, True)}, "local:ana", "1")
    with pytest.raises(AnswersInvalid, match="rated no picture"):
        house.submit(sheet.id, "Ana", {}, "local:ana", "1")
    for name in ("", "  ", "x" * 81):
        with pytest.raises(InvalidArgument):
            house.submit(sheet.id, name, {"p01": Answer(True, True)}, "local:ana", "1")
    assert house.get(sheet.id).submissions == ()


def test_a_persons_later_answers_replace_the_earlier_ones_and_a_repeat_is_harmless() -> None:
    house = sheets()
    sheet = made(house=house)
    house.submit(sheet.id, "Ana", answers(sheet, fooled=True), "local:ana", "1")
    house.submit(sheet.id, "Bo", answers(sheet, fooled=True), "local:ana", "2")
    again = house.submit(sheet.id, " Ana ", {"p01": Answer(True, True)}, "local:ana", "3")
    assert [len(one.answers) for one in again.submissions] == [1, 6]
    assert house.submit(sheet.id, "Ana", {"p01": Answer(True, True)}, "local:ana", "3") == again
    with pytest.raises(OperationConflict):
        house.submit(sheet.id, "Ana", {"p02": Answer(True, True)}, "local:ana", "3")


def test_scores_count_generated_and_real_pictures_apart() -> None:
    house = sheets()
    sheet = made(3, 4, house)
    house.submit(sheet.id, "Ana", answers(sheet, fooled=True, recognised=False), "local:x", "1")
    house.submit(sheet.id, "Bo", answers(sheet, fooled=False, on_brand=False), "local:x", "2")
    scores = scores_of(house.get(sheet.id))
    assert scores is not None and scores.fooled is not None and scores.recognised is not None
    assert (scores.generated_answers, scores.real_answers) == (8, 6)
    assert (scores.fooled.value, scores.recognised.value) == (0.5, 0.5)
    assert scores.agreement is not None and scores.agreement.kappa < 0, "they said the opposite of everything"
    assert scores.on_brand is not None and scores.on_brand.value == 0.5
    metrics = scores.metrics(2)
    assert metrics["people_fooled_rate"] == 0.5 and metrics["people_fooled_rate_low"] < 0.5
    assert metrics["people_raters"] == 2 and metrics["people_answers"] == 14
    message = sheet_message(house.get(sheet.id))
    assert [(rater.name, rater.fooled_rate, rater.submitted_by) for rater in message.raters] == [
        ("Ana", 1.0, "local:x"), ("Bo", 0.0, "local:x")
    ]  # fmt: skip
    assert message.scores.fooled.low < 0.5 < message.scores.fooled.high


def test_agreement_is_about_pictures_that_all_rated() -> None:
    house = sheets()
    sheet = made(3, 3, house)
    told = answers(sheet, fooled=False)
    house.submit(sheet.id, "Ana", told, "x", "1")
    house.submit(sheet.id, "Bo", {label: told[label] for label in sheet.labels[:4]}, "x", "2")
    scores = scores_of(house.get(sheet.id))
    assert scores is not None and scores.agreement is not None
    assert (scores.agreement.kappa, scores.agreement.pictures, scores.agreement.method) == (1.0, 4, "cohen")
    assert scores.on_brand_agreement is None, "both found everything on-brand: chance alone would give that"


def test_a_sheet_that_nobody_answered_has_no_scores() -> None:
    sheet = made()
    assert scores_of(sheet) is None
    message = sheet_message(sheet)
    assert not message.HasField("scores") and message.verdict.outcome == pb.RATING_OUTCOME_PENDING


@pytest.mark.parametrize(
    ("fooled", "on_brand", "outcome"),
    [(True, True, Outcome.PASSED), (False, True, Outcome.FAILED), (True, False, Outcome.FAILED)],
)
def test_people_pass_what_is_on_brand_and_taken_for_real(fooled: bool, on_brand: bool, outcome: Outcome) -> None:
    house = sheets()
    sheet = made(2, MIN_GENERATED_ANSWERS // 2, house)
    one = house.submit(sheet.id, "Ana", answers(sheet, fooled=fooled, on_brand=on_brand), "x", "1")
    assert verdict_of(scores_of(one), 1).outcome is Outcome.PENDING, "one person's taste is no gate"
    both = house.submit(sheet.id, "Bo", answers(sheet, fooled=fooled, on_brand=on_brand), "x", "2")
    verdict = verdict_of(scores_of(both), 2)
    assert verdict.outcome is outcome
    assert "on-brand" in verdict.reason and "least 60%" in verdict.reason


def waiting_job(jobs: Jobs) -> str:
    job = jobs.create("r", adapter="ink", base="b", dataset_version="datasets/ink/versions/1", config_yaml="")
    jobs.change(job.id, "d", lambda head: replace(head, attempt=Attempt(1, "s", "ray"), dispatched=True))
    return jobs.end(job.id, "end/1", JobState.FAILED, attempt=1, failure=JobFailure(WAITING, "rate it")).id


@pytest.mark.parametrize("fooled", [True, False])
def test_a_job_that_waits_for_people_goes_on_once_they_have_spoken(fooled: bool) -> None:
    """Also when they refuse it: its own gate then says so with their figures."""
    store, clock = MemoryStore(), FixedClock()
    jobs, house = Jobs(store, clock), sheets()
    job_id = waiting_job(jobs)
    sheet = house.make("s", replace(SUBJECT, job=job_id), real(2), generated(10), "ana")
    assert take_up(jobs, house.submit(sheet.id, "Ana", answers(sheet, fooled=fooled), "x", "1")) is None
    assert people_on(house, job_id) is None and jobs.get(job_id).ended
    spoken = house.submit(sheet.id, "Bo", answers(sheet, fooled=fooled), "x", "2")
    taken = take_up(jobs, spoken)
    assert taken is not None
    assert (taken.state, taken.dispatched, taken.failure, taken.ended_at) == (JobState.QUEUED, False, None, "")
    assert taken.attempt is not None and taken.attempt.number == 1, "the next one is 2"
    people = people_on(house, job_id)
    assert people is not None and (people.raters, people.passes) == (2, fooled)
    assert take_up(jobs, spoken) is None, "once"


def test_a_job_that_failed_for_another_reason_or_ended_well_stays_ended() -> None:
    jobs, house = Jobs(MemoryStore(), FixedClock()), sheets()
    job = jobs.create("r", adapter="ink", base="b", dataset_version="v", config_yaml="")
    jobs.end(job.id, "end", JobState.FAILED, failure=JobFailure("NON_FINITE_LOSS", "x"))
    sheet = house.make("s", replace(SUBJECT, job=job.id), real(2), generated(20), "ana")
    for name in ("Ana", "Bo"):
        sheet = house.submit(sheet.id, name, answers(sheet, fooled=True), "x", name)
    assert take_up(jobs, sheet) is None and jobs.get(job.id).state is JobState.FAILED


def test_a_jobs_own_drawings_are_kept_once() -> None:
    kept = KeptDrawings(MemoryStore())
    assert kept.of("job-1") == [] and kept.of("") == []
    kept.keep("job-1", generated(3))
    kept.keep("job-1", generated(1))
    assert kept.of("job-1") == generated(3)


def test_prompts_are_captions_each_as_often_as_the_others() -> None:
    told = prompts_for(["a lake", "a hill", "a lake", ""], 5)
    assert len(told) == 5 and set(told) == {"a lake", "a hill"}
    assert prompts_for([], 3) == ["", "", ""]


def test_a_sheets_kinds_are_what_was_given() -> None:
    kinds = [item.kind for item in made(3, 5).items]
    assert (kinds.count(Kind.REAL), kinds.count(Kind.GENERATED)) == (3, 5)
