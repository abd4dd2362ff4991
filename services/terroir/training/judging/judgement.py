"""What a judgement found, as values that are kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from terroir.training.judging.verdicts import Scores, Thresholds, Verdict, verdict_of


@dataclass(frozen=True)
class Evidence:
    """A picture that an adapter drew, beside the training picture that it is closest to."""

    prompt: str
    seed: int
    training_picture: str
    """Its file's name."""
    pixels: float
    """Distances as in `terroir.scoring.copies.Nearest`."""
    embedding: float
    is_copy: bool
    picture: str
    """Blob: PNG with the drawn picture left and the training picture right."""


@dataclass(frozen=True)
class Measured:
    """What was measured of one checkpoint, by whatever bounds it is judged."""

    scores: Scores | None
    broken: str = ""
    """Why there are no scores."""
    evidence: tuple[Evidence, ...] = ()
    """Closest first."""
    pictures: int = 0
    """How many were drawn."""
    seconds: float = 0.0
    """What drawing and measuring took."""
    samples: str = ""
    """Blob: PNG of the held-out pictures, a row a prompt, a column a seed; empty for a broken one."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Measured:
        """The inverse of `to_json`."""
        scores = body["scores"]
        return cls(
            **{
                **body,
                "scores": Scores(**scores) if scores else None,
                "evidence": tuple(Evidence(**one) for one in body["evidence"]),
            }
        )


@dataclass(frozen=True)
class JudgedCheckpoint:
    """A checkpoint with its verdict."""

    step: int
    digest: str
    """Of its state."""
    measured: Measured
    failed: tuple[str, ...]
    """Keys of the bounds that it misses, the gravest first."""

    @property
    def scores(self) -> Scores | None:
        """Its figures; None for a broken one."""
        return self.measured.scores

    @property
    def verdict(self) -> Verdict:
        """What the missed bounds amount to."""
        return Verdict.BROKEN if self.measured.scores is None else verdict_of(self.failed)

    @classmethod
    def of(cls, step: int, digest: str, measured: Measured, thresholds: Thresholds) -> JudgedCheckpoint:
        """A checkpoint by a run's bounds."""
        failed = thresholds.failed(measured.scores) if measured.scores else ()
        return cls(step, digest, measured, failed)


@dataclass(frozen=True)
class Judgement:
    """All checkpoints of a run that were judged, and what follows."""

    checkpoints: tuple[JudgedCheckpoint, ...]
    """By step."""
    thresholds: Thresholds
    chosen_step: int
    """The one to publish; 0 if none is."""
    gate: str
    """`enforce` or `warn`."""
    recipe: str
    """Digest of what was drawn and compared."""
    pictures: int
    """Drawn now, not taken from an earlier judgement, the base's own among them."""
    seconds: float
    """What all of it took."""
    advice: tuple[str, ...] = ()
    """What to try, if nothing passes."""
    prompts: tuple[str, ...] = ()
    """Held-out prompts, as the samples' rows."""
    left_out: tuple[int, ...] = ()
    """Steps of the checkpoints that needed no look; see `is_settled`."""

    @property
    def verdict(self) -> Verdict:
        """Of the chosen checkpoint, else of the last."""
        chosen = self.chosen
        return chosen.verdict if chosen else self.checkpoints[-1].verdict

    @property
    def chosen(self) -> JudgedCheckpoint | None:
        """The checkpoint to publish."""
        return next((one for one in self.checkpoints if one.step == self.chosen_step), None)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Judgement:
        """The inverse of `to_json`."""
        checkpoints = tuple(
            JudgedCheckpoint(one["step"], one["digest"], Measured.from_json(one["measured"]), tuple(one["failed"]))
            for one in body["checkpoints"]
        )
        lists = {key: tuple(body[key]) for key in ("advice", "prompts", "left_out")}
        thresholds = Thresholds(**body["thresholds"])
        return cls(**{**body, **lists, "checkpoints": checkpoints, "thresholds": thresholds})
