"""What an export refuses."""

from __future__ import annotations

from terroir.common.errors import FailedPrecondition


class ExportFailed(FailedPrecondition):
    """EXPORT_BASE_INVALID, EXPORT_BASE_MISMATCH, EXPORT_NOT_FINITE, EXPORT_TARGET_EXISTS, EXPORT_TARGET_UNUSABLE."""

    reason = "EXPORT_FAILED"
