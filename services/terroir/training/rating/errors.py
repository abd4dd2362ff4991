"""What can go wrong with ratings; each error has a stable reason code and says the next step."""

from __future__ import annotations

from terroir.common.errors import FailedPrecondition, InvalidArgument, NotFound


class SheetNotFound(NotFound):
    """No such sheet."""

    reason = "RATING_SHEET_NOT_FOUND"


class SheetStreamInvalid(InvalidArgument):
    """The stream that makes a sheet does not follow the protocol."""

    reason = "RATING_SHEET_INVALID"


class PictureUnusable(InvalidArgument):
    """A picture of a sheet cannot be shown."""

    reason = "RATING_PICTURE_UNUSABLE"


class PicturesLacking(FailedPrecondition):
    """There are not enough pictures for the sheet."""

    reason = "RATING_PICTURES_LACKING"


class AnswersInvalid(InvalidArgument):
    """Answers that do not belong to the sheet, or say nothing that can be counted."""

    reason = "RATINGS_INVALID"
