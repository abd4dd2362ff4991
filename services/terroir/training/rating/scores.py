"""What people's answers amount to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from terroir.training.rating.model import Answer, Kind, Sheet
from terroir.training.rating.statistics import Agreement, Share, agreement, share


@dataclass(frozen=True)
class RaterScore:
    """One person's answers in figures."""

    rater: str
    submitted_by: str
    time: str
    rated: int
    fooled: Share | None
    """Generated pictures that the person took for real."""


@dataclass(frozen=True)
class Scores:
    """Over all people. A share is None where nobody answered about such a picture."""

    generated_answers: int
    real_answers: int
    fooled: Share | None
    """Generated pictures taken for real."""
    recognised: Share | None
    """Real pictures taken for real."""
    on_brand: Share | None
    """Generated pictures found on-brand."""
    real_on_brand: Share | None
    agreement: Agreement | None
    """On real or generated."""
    on_brand_agreement: Agreement | None

    def metrics(self, raters: int) -> Mapping[str, float]:
        """By the names under which they stand beside the machine's figures."""
        told = {"people_raters": float(raters), "people_answers": float(self.generated_answers + self.real_answers)}
        for name, found in (("people_fooled_rate", self.fooled), ("people_on_brand_rate", self.on_brand)):
            if found is not None:
                told |= {name: round(found.value, 4), f"{name}_low": round(found.low, 4)}
        if self.recognised is not None:
            told["people_recognised_rate"] = round(self.recognised.value, 4)
        if self.agreement is not None:
            told["people_agreement_kappa"] = round(self.agreement.kappa, 4)
        return told


def scores_of(sheet: Sheet) -> Scores | None:
    """None while nobody has answered."""
    if not sheet.submissions:
        return None
    generated, real = _answers(sheet, Kind.GENERATED), _answers(sheet, Kind.REAL)
    return Scores(
        generated_answers=len(generated),
        real_answers=len(real),
        fooled=_share(generated, lambda answer: answer.taken_for_real),
        recognised=_share(real, lambda answer: answer.taken_for_real),
        on_brand=_share(generated, lambda answer: answer.on_brand),
        real_on_brand=_share(real, lambda answer: answer.on_brand),
        agreement=_agreement(sheet, lambda answer: answer.taken_for_real),
        on_brand_agreement=_agreement(sheet, lambda answer: answer.on_brand),
    )


def rater_scores(sheet: Sheet) -> list[RaterScore]:
    """In order of first answers."""
    generated = {item.label for item in sheet.items if item.kind is Kind.GENERATED}
    found = []
    for submission in sheet.submissions:
        about = [answer for label, answer in submission.answers.items() if label in generated]
        fooled = _share(about, lambda answer: answer.taken_for_real)
        found.append(
            RaterScore(submission.rater, submission.submitted_by, submission.time, len(submission.answers), fooled)
        )
    return found


def _answers(sheet: Sheet, kind: Kind) -> list[Answer]:
    labels = [item.label for item in sheet.items if item.kind is kind]
    return [
        submission.answers[label] for submission in sheet.submissions for label in labels if label in submission.answers
    ]


def _share(answers: list[Answer], hit: Callable[[Answer], bool]) -> Share | None:
    return share(sum(map(hit, answers)), len(answers))


def _agreement(sheet: Sheet, said: Callable[[Answer], bool]) -> Agreement | None:
    rows = [
        [said(submission.answers[label]) for submission in sheet.submissions]
        for label in sheet.labels
        if all(label in submission.answers for submission in sheet.submissions)
    ]
    return agreement(rows)
