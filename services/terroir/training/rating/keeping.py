"""Pictures that a job with `rating_gate` drew for its raters: nothing of it is published that could draw them later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

from terroir.store.blobs import Blobs
from terroir.store.errors import AlreadyExists, NotFound
from terroir.store.interface import ObjectStore
from terroir.training.rating.model import Drawn


class KeptDrawings:
    """One set a job, written once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._blobs = Blobs(store)

    def keep(self, job_id: str, drawn: Sequence[Drawn]) -> None:
        """Keep them; the first set of a job stays."""
        told = [{"blob": self._blobs.put(one.data), "prompt": one.prompt, "seed": one.seed} for one in drawn]
        with suppress(AlreadyExists):
            self._store.create(_key(job_id), json.dumps(told).encode())

    def of(self, job_id: str) -> list[Drawn]:
        """A job's set; empty if it drew none."""
        if not job_id:
            return []
        try:
            told = json.loads(self._store.get(_key(job_id)))
        except NotFound:
            return []
        return [Drawn(self._blobs.get(one["blob"]), one["prompt"], one["seed"]) for one in told]


def _key(job_id: str) -> str:
    return f"jobs/{job_id}/drawn-for-rating"
