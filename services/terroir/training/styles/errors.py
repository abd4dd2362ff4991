"""What RegisterStyle refuses, and the ends of a registration that no other service names."""

from __future__ import annotations

from terroir.common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound


class RegistrationNotFound(NotFound):
    """No such registration."""

    reason = "REGISTRATION_NOT_FOUND"


class StyleBusy(FailedPrecondition):
    """Another registration of the style has not ended."""

    reason = "STYLE_BEING_REGISTERED"


class StyleExists(AlreadyExists):
    """The style has an adapter, and a further version was not asked for."""

    reason = "STYLE_EXISTS"


class RegionUnknown(NotFound):
    """The region is not in the region tree."""

    reason = "REGION_NOT_FOUND"


class DatasetDiffers(FailedPrecondition):
    """The dataset was made for another region, or with another rights statement, than the registration says."""

    reason = "DATASET_DIFFERS"


class ImportSourceUnknown(NotFound):
    """The operator configured no such source."""

    reason = "IMPORT_SOURCE_NOT_FOUND"


class ImportSourceUnreadable(FailedPrecondition):
    """The source that the operator configured cannot be listed or read."""

    reason = "IMPORT_SOURCE_UNREADABLE"


class UnjudgedRefused(InvalidArgument):
    """A registered style is judged, and the configuration turns the judgement off."""

    reason = "STYLE_UNJUDGED"


class NothingPublished(FailedPrecondition):
    """The job ended well without a version."""

    reason = "NOTHING_PUBLISHED"
