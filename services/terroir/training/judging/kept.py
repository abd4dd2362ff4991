"""What judgements keep in the store, so that nothing is drawn twice: scores, the base's own pictures, outcomes."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from PIL import Image

from terroir.common.clock import Clock
from terroir.store.blobs import Blobs
from terroir.store.documents import DocumentSequence
from terroir.store.errors import AlreadyExists, NotFound
from terroir.store.interface import ObjectStore
from terroir.training.judging.errors import NotJudged
from terroir.training.judging.judgement import Judgement, Measured

SHIPPED: Final = Path(__file__).parent / "base_pictures"
"""Of the embedded base; `terroir.training.judging.shipped` draws them."""
_BASES: Final = "judging/bases"


class KeptJudgements:
    """Of one run, below its prefix; the base's pictures are every run's."""

    def __init__(self, store: ObjectStore, run_prefix: str, clock: Clock) -> None:
        self.blobs = Blobs(store)
        self._store = store
        self._prefix = f"{run_prefix}/judged"
        self._outcomes = DocumentSequence(store, f"{run_prefix}/judgements", clock)

    def measured(self, recipe: str, checkpoint: str) -> Measured | None:
        """What was measured of a checkpoint by a recipe, both by digest, if it was."""
        try:
            return Measured.from_json(json.loads(self._store.get(self._key(recipe, checkpoint))))
        except NotFound:
            return None

    def keep(self, recipe: str, checkpoint: str, measured: Measured) -> None:
        """Keep it; whoever was first stays."""
        with suppress(AlreadyExists):
            self._store.create(self._key(recipe, checkpoint), json.dumps(measured.to_json()).encode())

    def base_pictures(self, digest: str, count: int) -> list[Image.Image] | None:
        """The base's own pictures, if some run has drawn them or they come with the code."""
        data = self._base_strip(digest)
        if data is None:
            return None
        with Image.open(io.BytesIO(data)) as strip:
            side = strip.height // count
            return [strip.convert("RGB").crop((0, at * side, strip.width, (at + 1) * side)) for at in range(count)]

    def keep_base_pictures(self, digest: str, pictures: Sequence[Image.Image]) -> None:
        """Keep them, one below the other in one PNG."""
        with suppress(AlreadyExists):
            self._store.create(f"{_BASES}/{digest}", strip_of(pictures))

    def record(self, judgement: Judgement, op_id: str) -> None:
        """Make it the run's newest judgement; of one `op_id` the first stays."""
        body = judgement.to_json()
        self._outcomes.append_with(lambda _: body, op_id=op_id, request={"judgement": op_id})

    def newest(self) -> Judgement:
        """The run's judgement; raises NotJudged."""
        try:
            return Judgement.from_json(self._outcomes.head().body)
        except NotFound as error:
            raise NotJudged(
                "the run has no judgement; it has not come so far, or publish_gate is off (set it to warn or enforce)"
            ) from error

    def _base_strip(self, digest: str) -> bytes | None:
        try:
            return self._store.get(f"{_BASES}/{digest}")
        except NotFound:
            shipped = SHIPPED / f"{digest}.png"
            return shipped.read_bytes() if shipped.is_file() else None

    def _key(self, recipe: str, checkpoint: str) -> str:
        return f"{self._prefix}/{recipe[:32]}/{checkpoint}"


def strip_of(pictures: Sequence[Image.Image]) -> bytes:
    """Pictures of one size, one below the other, as a PNG file."""
    width, height = pictures[0].size
    strip = Image.new("RGB", (width, height * len(pictures)))
    for number, picture in enumerate(pictures):
        strip.paste(picture, (0, number * height))
    return png(strip)


def png(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
