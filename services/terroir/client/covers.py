"""Covers for a feed: an answer within a quarter of a second, whatever happens to the servers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import grpc

from terroir._proto.inference.v1 import cover_pb2 as pb
from terroir._proto.inference.v1 import cover_pb2_grpc
from terroir.client.calls import UNARY_SECONDS, new_request_id, typed_errors
from terroir.client.cover_values import (
    Cover,
    CoverContent,
    CoverQuery,
    Default,
    cover_of,
    region_name,
    shape_message,
    standing_in,
)
from terroir.client.hedging import REFUSALS, Hedged
from terroir.client.pictures import ELSEWHERE, PRIORITIES
from terroir.client.routing import Router
from terroir.common.errors import TerroirError, Unavailable

DEADLINE_SECONDS: Final = 0.25
STATES: Final = {
    pb.PREPARATION_STATE_RUNNING: "running", pb.PREPARATION_STATE_SUCCEEDED: "succeeded",
    pb.PREPARATION_STATE_CANCELLED: "cancelled", pb.PREPARATION_STATE_CUT_SHORT: "cut short",
}  # fmt: skip
_PREPARE_SECONDS: Final = 300.0
"""Ten thousand contents are remembered before the answer."""
_READ_SECONDS: Final = 30.0
_PAUSE_STEP_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 5.0


class Covers:
    """Calls of CoverService. Thread safe."""

    def __init__(self, channels: Mapping[str, grpc.Channel], router: Router, spare: grpc.Channel | None = None) -> None:
        """Channels by address; `spare` is a second connection to the only replica, for calls that are late."""
        self._stubs = {target: cover_pb2_grpc.CoverServiceStub(opened) for target, opened in channels.items()}
        self._router = router
        second = cover_pb2_grpc.CoverServiceStub(spare).GetCovers if spare is not None else None
        self._first = Hedged[pb.GetCoversResponse](
            router, {target: stub.GetCovers for target, stub in self._stubs.items()}, second
        )

    def get(
        self,
        contents: str | Sequence[str],
        region: str = "",
        *,
        count: int = 1,
        sticky_key: str = "",
        width: int = 0,
        height: int = 0,
        aspect: str = "",
        file_format: str = "",
        with_data: bool = False,
        default: Default = "",
        timeout: float = DEADLINE_SECONDS,
        hedge_after_seconds: float | None = None,
    ) -> list[Cover]:
        """The best covers of contents in the style of a region, at once.

        Where no server answers within `timeout` seconds, each content gets `default`, and `Cover.unanswered` says why.
        A second call goes to another replica when the first is later than 95 of 100 answers before it, or than
        `hedge_after_seconds`. Raises InvalidArgument, PermissionDenied and Unauthenticated alone: those are mistakes.
        """
        keys = [contents] if isinstance(contents, str) else list(contents)
        return self.get_many(
            [CoverQuery(keys, region, count)], sticky_key=sticky_key, width=width, height=height, aspect=aspect,
            file_format=file_format, with_data=with_data, default=default, timeout=timeout,
            hedge_after_seconds=hedge_after_seconds,
        )  # fmt: skip

    def get_many(
        self,
        queries: Sequence[CoverQuery],
        *,
        sticky_key: str = "",
        width: int = 0,
        height: int = 0,
        aspect: str = "",
        file_format: str = "",
        with_data: bool = False,
        default: Default = "",
        timeout: float = DEADLINE_SECONDS,
        hedge_after_seconds: float | None = None,
    ) -> list[Cover]:
        """As `get` for several regions, in the order of queries, contents and variants; at most 1,000 covers."""
        request = pb.GetCoversRequest(
            queries=[
                pb.CoverQuery(contents=query.contents, region=region_name(query.region), count=query.count)
                for query in queries
            ],
            shape=shape_message(width, height, aspect, file_format), sticky_key=sticky_key, with_data=with_data,
        )  # fmt: skip
        # Sets of a region lie in the memory of one replica, which has its adapters, too.
        key = " ".join(sorted({query.region for query in request.queries}))
        try:
            answer = self._first.call(request, key=key, timeout=timeout, hedge_after_seconds=hedge_after_seconds)
        except REFUSALS:
            raise
        except TerroirError as error:
            return [
                standing_in(Cover(content, query.region, unanswered=error.reason), default)
                for query in request.queries
                for content in query.contents
            ]
        return [cover_of(message, default) for message in answer.covers]

    def read(self, name: str) -> bytes:
        """The file of a cover, by its `picture`; raises NotFound (COVER_NOT_FOUND) once it was replaced."""
        request = pb.ReadCoverRequest(name=name)

        def read(stub: cover_pb2_grpc.CoverServiceStub) -> bytes:
            return b"".join(part.data for part in stub.ReadCover(request, timeout=_READ_SECONDS))

        data = self._anywhere(read)
        if hashlib.sha256(data).hexdigest() != name.removeprefix("covers/"):
            raise Unavailable(f"{name} arrived damaged; try again", reason="DOWNLOAD_CORRUPT")
        return data

    def prepare(
        self,
        contents: Iterable[CoverContent] | Mapping[str, str],
        regions: Iterable[str],
        *,
        variants: int = 0,
        width: int = 0,
        height: int = 0,
        aspect: str = "",
        file_format: str = "",
        priority: str = "normal",
        deadline: datetime | None = None,
        max_pictures: int = 0,
        redraw: bool = False,
        request_id: str | None = None,
    ) -> pb.CoverPreparation:
        """Have covers drawn, in rows that nobody else uses; `contents` are prompts by key, or whole contents.

        An empty region is the base's own look; 0 variants means the server's default. The same `request_id` returns
        the same preparation. Raises InvalidArgument and Unavailable.
        """
        if isinstance(contents, Mapping):
            contents = [CoverContent(key, prompt) for key, prompt in contents.items()]
        request = pb.PrepareCoversRequest(
            contents=[
                pb.CoverContent(key=each.key, prompt=each.prompt, negative_prompt=each.negative_prompt)
                for each in contents
            ],
            regions=[region_name(region) for region in regions], variants=variants,
            shape=shape_message(width, height, aspect, file_format), priority=PRIORITIES[priority],
            max_pictures=max_pictures, redraw=redraw, request_id=request_id or new_request_id(),
        )  # fmt: skip
        if deadline is not None:
            request.deadline.FromDatetime(deadline)
        return self._anywhere(lambda stub: stub.PrepareCovers(request, timeout=_PREPARE_SECONDS))

    def preparation(self, name: str) -> pb.CoverPreparation:
        """One preparation, by `preparations/{id}`."""
        request = pb.GetPreparationRequest(name=name)
        return self._anywhere(lambda stub: stub.GetPreparation(request, timeout=UNARY_SECONDS))

    def preparations(self) -> Iterator[pb.CoverPreparation]:
        """All preparations, newest first, page by page."""
        token = ""
        while True:
            page = self._page(token)
            yield from page.preparations
            if not (token := page.next_page_token):
                return

    def watch(self, name: str) -> Iterator[pb.CoverPreparation]:
        """The preparation at every change, until it has ended; a lost connection is taken up again.

        Raises what the first connection does, and later what no retry can mend.
        """
        begun, pause = False, 0.0
        while True:
            try:
                with typed_errors(), self._router.placed("") as replica:
                    for answer in self._stubs[replica].WatchPreparation(pb.WatchPreparationRequest(name=name)):
                        begun, pause = True, 0.0
                        yield answer.preparation
                return
            except Unavailable:
                self._router.failed(replica)
                if not begun:
                    raise
            pause = min(pause + _PAUSE_STEP_SECONDS, _LONGEST_PAUSE_SECONDS)
            time.sleep(pause)

    def cancel(self, name: str) -> pb.CoverPreparation:
        """End a preparation; covers that are drawn stay."""
        request = pb.CancelPreparationRequest(name=name)
        return self._anywhere(lambda stub: stub.CancelPreparation(request, timeout=UNARY_SECONDS))

    def invalidate(
        self,
        contents: Sequence[str] = (),
        region: str = "",
        *,
        withdraw: bool = False,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Say that covers of contents, of a region, or of contents in a region are no longer right.

        They are shown as stale until better ones are drawn, or with `withdraw` not at all.
        """
        request = pb.InvalidateCoversRequest(
            contents=contents, region=region_name(region), withdraw=withdraw, reason=reason,
            request_id=request_id or new_request_id(),
        )  # fmt: skip
        self._anywhere(lambda stub: stub.InvalidateCovers(request, timeout=UNARY_SECONDS))

    def _page(self, token: str) -> pb.ListPreparationsResponse:
        request = pb.ListPreparationsRequest(page_token=token)
        return self._anywhere(lambda stub: stub.ListPreparations(request, timeout=UNARY_SECONDS))

    def _anywhere(self, call: Callable[[Any], Any]) -> Any:
        """A call that any replica can take, and that may be repeated: those that can't be reached are passed over."""
        tried: list[str] = []
        while True:
            with self._router.placed("", tried) as replica:
                try:
                    with typed_errors():
                        answer = call(self._stubs[replica])
                    self._router.answered(replica)
                    return answer
                except Unavailable as error:
                    if error.reason not in ELSEWHERE:
                        raise
                    self._router.failed(replica)
                    tried.append(replica)
                    if len(tried) == len(self._stubs):
                        raise
