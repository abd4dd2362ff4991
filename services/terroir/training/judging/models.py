"""Which CLIP judges pictures of which base."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from terroir.common.base_digest import base_digest, component_digests
from terroir.tiny import BASE_DIR, CLIP_DIR
from terroir.training.config import PublishGate, TrainConfig
from terroir.training.errors import ConfigInvalid
from terroir.training.judging.errors import JudgeModelMissing


@lru_cache(maxsize=1)
def tiny_digest() -> str:
    """Of the embedded base, which knows a small world and nothing else."""
    return base_digest(component_digests(BASE_DIR))


def ensure_judgeable(config: TrainConfig, base: str, model: str) -> None:
    """Raise JudgeModelMissing if a run is to be judged on a base, told by its digest, and nothing can.

    Whether `model` is a CLIP is seen where its folder is, on the workers. Raises ConfigInvalid for a run that people
    shall rate and nothing judges.
    """
    if config.publish_gate is PublishGate.OFF and config.rating_gate:
        raise ConfigInvalid(
            "rating_gate is set and publish_gate is off: people decide beside the figures, not instead of them (set "
            "publish_gate to enforce or warn)",
            field="rating_gate",
        )
    if config.publish_gate is not PublishGate.OFF and not model and base != tiny_digest():
        raise _missing()


def judge_model(base: str, chosen: Path | None) -> Path:
    """Folder of the CLIP that judges pictures of a base, told by its digest; raises JudgeModelMissing."""
    if chosen is not None:
        if not (chosen / "config.json").is_file():
            raise JudgeModelMissing(
                f"judge_model {chosen} is no transformers folder of a CLIP (it has no config.json); mount one and set "
                "TERROIR_TRAINING_JUDGE_MODEL"
            )
        return chosen
    if base == tiny_digest():
        return CLIP_DIR
    raise _missing()


def _missing() -> JudgeModelMissing:
    return JudgeModelMissing(
        "publish_gate asks for a judgement, and no CLIP is set that knows the pictures of this base: set "
        "TERROIR_TRAINING_JUDGE_MODEL to the folder of one (such as openai/clip-vit-large-patch14), or publish_gate "
        "to off",
        field="publish_gate",
    )
