"""Blind rating from a program: sheets out, people's answers in."""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from terroir._proto.training.v1 import rating_pb2 as pb
from terroir._proto.training.v1 import rating_pb2_grpc
from terroir.client.calls import UNARY_SECONDS, new_request_id, typed_errors, typed_stream
from terroir.common.errors import InvalidArgument

_MAKING_SECONDS: Final = 300.0
_PATH: Final = re.compile(r"sheet\.html|sheet\.csv|pictures/p[0-9]{2,4}\.png")
"""What a sheet may write: a server's answer is no reason to write elsewhere."""
_TAKEN: Final = {"real": pb.TAKEN_FOR_REAL, "generated": pb.TAKEN_FOR_GENERATED}
_BRAND: Final = {"yes": pb.ON_BRAND_YES, "no": pb.ON_BRAND_NO}
_COLUMNS: Final = ("sheet", "rater", "picture", "real_or_generated", "on_brand")
_NAMED_ERRORS: Final = 5


@dataclass(frozen=True)
class DrawnPicture:
    """A generated picture for a sheet."""

    data: bytes
    prompt: str
    seed: int


@dataclass(frozen=True)
class Answers:
    """What one person said about one sheet."""

    sheet: str
    """`ratingSheets/{id}`."""
    rater: str
    ratings: tuple[pb.Rating, ...]


class Ratings:
    """Calls of RatingService."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = rating_pb2_grpc.RatingServiceStub(channel)

    def make(
        self,
        subject: str,
        pictures: Sequence[DrawnPicture] = (),
        *,
        real: int = 0,
        generated: int = 0,
        request_id: str | None = None,
    ) -> pb.RatingSheet:
        """Make a sheet about `jobs/{id}` or `adapters/{id}/versions/{number}`; 0 pictures of a kind mean 12.

        Without `pictures` those that the job drew itself are taken.
        """
        header = pb.RatingSheetHeader(
            subject=subject, real_count=real, generated_count=generated, request_id=request_id or new_request_id()
        )

        def messages() -> Iterator[pb.CreateRatingSheetRequest]:
            yield pb.CreateRatingSheetRequest(header=header)
            for one in pictures:
                picture = pb.GeneratedPicture(data=one.data, prompt=one.prompt, seed=one.seed)
                yield pb.CreateRatingSheetRequest(picture=picture)

        with typed_errors():
            return self._stub.CreateRatingSheet(messages(), timeout=_MAKING_SECONDS)

    def download(self, name: str, folder: Path) -> list[Path]:
        """Write the files of a sheet below a folder, which is made; raises InvalidArgument (RATING_FILE_NAME)."""
        found: dict[str, bytearray] = {}
        data = bytearray()
        request = pb.DownloadRatingSheetRequest(name=name)
        for answer in typed_stream(self._stub.DownloadRatingSheet(request, timeout=_MAKING_SECONDS)):
            if answer.WhichOneof("message") == "file":
                if not _PATH.fullmatch(answer.file.path):
                    raise InvalidArgument(
                        f"the service sent a file named {answer.file.path[:80]!r}, which no sheet has",
                        reason="RATING_FILE_NAME",
                    )
                data = found.setdefault(answer.file.path, bytearray())
            else:
                data += answer.chunk
        for path, content in found.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return [folder / path for path in found]

    def submit(self, answers: Answers, request_id: str | None = None) -> pb.RatingSheet:
        """Bring one person's answers; those of an earlier time are replaced."""
        request = pb.SubmitRatingsRequest(
            sheet=answers.sheet, rater=answers.rater, ratings=answers.ratings, request_id=request_id or new_request_id()
        )
        with typed_errors():
            return self._stub.SubmitRatings(request, timeout=UNARY_SECONDS)

    def get(self, name: str) -> pb.RatingSheet:
        """One sheet with its scores, by `ratingSheets/{id}`."""
        with typed_errors():
            return self._stub.GetRatingSheet(pb.GetRatingSheetRequest(name=name), timeout=UNARY_SECONDS)

    def list(self, subject: str = "") -> Iterator[pb.RatingSheet]:
        """Sheets, newest first, page by page."""
        token = ""
        while True:
            request = pb.ListRatingSheetsRequest(subject=subject, page_token=token)
            with typed_errors():
                page = self._stub.ListRatingSheets(request, timeout=UNARY_SECONDS)
            yield from page.sheets
            if not (token := page.next_page_token):
                return


def read_answers(path: Path) -> list[Answers]:
    """Answers in a filled-in form or in what the page saved, by person; rows without any answer are left out.

    Separators may be commas, semicolons or tabs, as spreadsheets write them. Raises InvalidArgument: RATINGS_INVALID
    naming the lines that are wrong, and RATINGS_UNREADABLE.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(
            f"cannot read {path}: {error}; save it as CSV UTF-8", reason="RATINGS_UNREADABLE"
        ) from error
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    columns = [(column or "").strip().lower() for column in rows.fieldnames or ()]
    if missing := [column for column in _COLUMNS if column not in columns]:
        raise InvalidArgument(
            f"{path} lacks the columns {', '.join(missing)} in its first line; use the form as it came with the sheet",
            reason="RATINGS_UNREADABLE",
        )
    rows.fieldnames = columns
    wrong: list[str] = []
    found: dict[tuple[str, str], dict[str, pb.Rating]] = {}
    for row in rows:
        told = {column: (row.get(column) or "").strip() for column in _COLUMNS}
        if problem := _take(told, found):
            wrong.append(f"line {rows.line_num}: {problem}")
    if wrong:
        more = f" and {len(wrong) - _NAMED_ERRORS} more" if len(wrong) > _NAMED_ERRORS else ""
        raise InvalidArgument(f"{path}: {'; '.join(wrong[:_NAMED_ERRORS])}{more}", reason="RATINGS_INVALID")
    if not found:
        raise InvalidArgument(
            f"{path} holds no answer; fill in real_or_generated and on_brand", reason="RATINGS_INVALID"
        )
    return [Answers(sheet, rater, tuple(ratings.values())) for (sheet, rater), ratings in found.items()]


def _take(told: Mapping[str, str], found: dict[tuple[str, str], dict[str, pb.Rating]]) -> str:
    """Add a row's answer; what is wrong with it, or nothing."""
    kind, brand = told["real_or_generated"].lower(), told["on_brand"].lower()
    if not kind and not brand:
        return ""
    if kind not in _TAKEN:
        return f"real_or_generated is {told['real_or_generated'][:20]!r}; write real or generated"
    if brand not in _BRAND:
        return f"on_brand is {told['on_brand'][:20]!r}; write yes or no"
    if not told["rater"]:
        return "no rater; write a name into every row that is filled in"
    if not told["sheet"].startswith("ratingSheets/"):
        return f"sheet is {told['sheet'][:40]!r}, not the name of one"
    label = told["picture"].lower()
    ratings = found.setdefault((told["sheet"], told["rater"]), {})
    if label in ratings:
        return f"picture {label} twice"
    ratings[label] = pb.Rating(picture=label, taken_for=_TAKEN[kind], on_brand=_BRAND[brand])
    return ""


def _delimiter(text: str) -> str:
    head = text.partition("\n")[0]
    return max((",", ";", "\t"), key=head.count)


def prompts_for(captions: Sequence[str], count: int, rng: random.Random | None = None) -> list[str]:
    """Prompts to draw a sheet's pictures with: captions of the training pictures, so that both show the same things."""
    chooser = rng or random.SystemRandom()
    told = sorted({caption for caption in captions if caption})
    if not told:
        return [""] * count
    whole, rest = divmod(count, len(told))
    return [*(told * whole), *chooser.sample(told, rest)]
