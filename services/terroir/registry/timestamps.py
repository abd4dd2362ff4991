"""Times between documents, which hold RFC 3339 text, and messages."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(text: str) -> Timestamp:
    """RFC 3339 text as a message."""
    stamp = Timestamp()
    stamp.FromDatetime(datetime.fromisoformat(text))
    return stamp
