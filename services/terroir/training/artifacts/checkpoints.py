"""Checkpoints in the object store: the blob first, the document that makes it visible last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from terroir.common.clock import Clock
from terroir.store.blobs import Blobs
from terroir.store.documents import Document, DocumentSequence
from terroir.store.errors import NotFound
from terroir.store.interface import ObjectStore
from terroir.training.engine.ports import Checkpoint
from terroir.training.errors import AttemptSuperseded


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint as lists show it."""

    step: int
    loss: float
    adapter_bytes: int
    attempt: int
    digest: str
    """Blob that holds the state."""
    created_at: str
    """RFC 3339, UTC."""


class Checkpoints:
    """The checkpoints of one run, in order of saving."""

    def __init__(self, store: ObjectStore, run_prefix: str, clock: Clock) -> None:
        self._blobs = Blobs(store)
        self._sequence = DocumentSequence(store, f"{run_prefix}/checkpoints", clock)

    def save(self, checkpoint: Checkpoint, attempt: int, before_write: Callable[[], None] = lambda: None) -> None:
        """Keep a checkpoint. Raises AttemptSuperseded if a newer attempt has saved; `before_write` may refuse too."""
        digest = self._blobs.put(checkpoint.state)
        body = {
            "step": checkpoint.step,
            "loss": checkpoint.loss,
            "adapter_bytes": checkpoint.adapter_bytes,
            "attempt": attempt,
            "digest": digest,
        }

        def build(head: Document | None) -> Mapping[str, Any]:
            before_write()
            if head is not None and head.body["attempt"] > attempt:
                raise AttemptSuperseded(
                    f"attempt {attempt} cannot save step {checkpoint.step}: attempt {head.body['attempt']} has saved"
                )
            return body

        self._sequence.append_with(build, op_id=f"{attempt}/{checkpoint.step}", request=body)

    def newest(self) -> Checkpoint | None:
        """The state to go on from, its digest verified."""
        try:
            saved = _saved(self._sequence.head())
        except NotFound:
            return None
        return self.load(saved)

    def load(self, saved: SavedCheckpoint) -> Checkpoint:
        """One of the listed, its digest verified."""
        return Checkpoint(saved.step, saved.loss, saved.adapter_bytes, self._blobs.get(saved.digest))

    def listed(self) -> list[SavedCheckpoint]:
        """Newest first, one a step."""
        by_step = {saved.step: saved for saved in map(_saved, self._sequence.history())}
        return sorted(by_step.values(), key=lambda saved: -saved.step)


def _saved(document: Document) -> SavedCheckpoint:
    return SavedCheckpoint(**document.body, created_at=document.created_at)
