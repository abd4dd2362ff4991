"""Sheets and scores as messages of the contract, and answers from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from terroir._proto.training.v1 import rating_pb2 as pb
from terroir.training.rating.errors import AnswersInvalid
from terroir.training.rating.gate import Outcome
from terroir.training.rating.model import Answer, Sheet
from terroir.training.rating.people import verdict_on
from terroir.training.rating.scores import RaterScore, Scores, rater_scores, scores_of
from terroir.training.rating.statistics import Agreement, Share

_OUTCOMES: Final = {
    Outcome.PENDING: pb.RATING_OUTCOME_PENDING,
    Outcome.PASSED: pb.RATING_OUTCOME_PASSED,
    Outcome.FAILED: pb.RATING_OUTCOME_FAILED,
}
_TAKEN: Final = {pb.TAKEN_FOR_REAL: True, pb.TAKEN_FOR_GENERATED: False}
_BRAND: Final = {pb.ON_BRAND_YES: True, pb.ON_BRAND_NO: False}
_NAMED_ERRORS: Final = 5


def sheet_message(sheet: Sheet) -> pb.RatingSheet:
    """A sheet without its key: nothing in it tells which picture is which."""
    scores, verdict = scores_of(sheet), verdict_on(sheet)
    return pb.RatingSheet(
        name=sheet.name,
        subject=sheet.subject,
        dataset_version=sheet.dataset_version,
        picture_count=len(sheet.items),
        side=sheet.side,
        creator=sheet.creator,
        create_time=_timestamp(sheet.created_at),
        raters=map(_rater, rater_scores(sheet)),
        scores=_scores(scores) if scores else None,
        verdict=pb.RatingVerdict(outcome=_OUTCOMES[verdict.outcome], reason=verdict.reason),
        etag=sheet.etag,
    )


def answers_of(ratings: Iterable[pb.Rating]) -> dict[str, Answer]:
    """Answers by label; raises AnswersInvalid, naming those that are wrong."""
    found: dict[str, Answer] = {}
    wrong: list[str] = []
    for number, rating in enumerate(ratings, start=1):
        label = rating.picture[:20]
        if rating.picture in found:
            wrong.append(f"answer {number}: picture {label!r} twice")
        elif rating.taken_for not in _TAKEN:
            wrong.append(f"answer {number}: picture {label!r} is neither real nor generated")
        elif rating.on_brand not in _BRAND:
            wrong.append(f"answer {number}: picture {label!r} is neither on-brand nor not")
        else:
            found[rating.picture] = Answer(_TAKEN[rating.taken_for], _BRAND[rating.on_brand])
    if wrong:
        more = f" and {len(wrong) - _NAMED_ERRORS} more" if len(wrong) > _NAMED_ERRORS else ""
        raise AnswersInvalid(
            f"{'; '.join(wrong[:_NAMED_ERRORS])}{more}; correct them and send all again", field="ratings"
        )
    return found


def _rater(score: RaterScore) -> pb.Rater:
    return pb.Rater(
        name=score.rater,
        submitted_by=score.submitted_by,
        rated=score.rated,
        fooled_rate=score.fooled.value if score.fooled else 0.0,
        time=_timestamp(score.time),
    )


def _scores(scores: Scores) -> pb.RatingScores:
    return pb.RatingScores(
        generated_answers=scores.generated_answers,
        real_answers=scores.real_answers,
        fooled=_share(scores.fooled),
        recognised=_share(scores.recognised),
        on_brand=_share(scores.on_brand),
        real_on_brand=_share(scores.real_on_brand),
        agreement=_agreement(scores.agreement),
        on_brand_agreement=_agreement(scores.on_brand_agreement),
    )


def _share(share: Share | None) -> pb.Share | None:
    return pb.Share(value=share.value, low=share.low, high=share.high) if share else None


def _agreement(found: Agreement | None) -> pb.Agreement | None:
    return pb.Agreement(kappa=found.kappa, method=found.method, pictures=found.pictures) if found else None


def _timestamp(text: str) -> Timestamp:
    stamp = Timestamp()
    stamp.FromJsonString(text)
    return stamp
