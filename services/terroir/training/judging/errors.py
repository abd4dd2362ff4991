"""What can go wrong with samples and judgements; each error has a stable reason code and says the next step."""

from __future__ import annotations

from terroir.common.errors import FailedPrecondition, InvalidArgument, NotFound


class AdapterUnfit(FailedPrecondition):
    """An adapter names layers that the base has not."""

    reason = "ADAPTER_UNFIT"


class PictureNotFinite(FailedPrecondition):
    """A picture has numbers that are no numbers: the adapter drives the base out of range."""

    reason = "PICTURE_NOT_FINITE"


class PromptsUnreadable(InvalidArgument):
    """No prompt is left that the adapter was not trained on, or the base's own cannot be read."""

    reason = "JUDGE_PROMPTS"


class JudgeModelMissing(FailedPrecondition):
    """Nobody said which CLIP judges pictures of this base."""

    reason = "JUDGE_MODEL_MISSING"


class StyleRefused(FailedPrecondition):
    """No checkpoint is good enough to be published."""

    reason = "STYLE_REFUSED"


class RatingMissing(FailedPrecondition):
    """The style passes by its figures, and waits for people's ratings."""

    reason = "RATING_MISSING"


class NotJudged(NotFound):
    """The job has no judgement."""

    reason = "JOB_NOT_JUDGED"


class SampleNotFound(NotFound):
    """The job has no such sample picture."""

    reason = "SAMPLE_NOT_FOUND"


class ReportNotFound(NotFound):
    """The job has no report yet."""

    reason = "REPORT_NOT_FOUND"
