"""The tiny base model: whether its pictures show what was asked for, and what its autoencoder keeps."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import Bench
from benchmarks.rows import Row, Target
from terroir.tiny import BASE_DIR, CLIP_DIR

CHECKOUT: Final = Path(__file__).resolve().parents[2]
_TARGETS: Final = {"subject": Target(at_least=0.85), "colour": Target(at_least=0.90)}
_CLASSIFIER: Final = "classifier on held-out renders"
_EXAMPLES: Final = ("jiangnan-ink", "sichuan-hotpot")


def rows(bench: Bench) -> Iterator[Row]:
    """Size, reconstructions, then the judgement, which takes minutes."""
    yield bench.row("size of the base on disk", "MB", _megabytes(BASE_DIR), target=Target(25))
    yield bench.row("size of the tiny CLIP on disk", "MB", _megabytes(CLIP_DIR))
    yield from _reconstructions(bench)
    yield from judgement_rows(bench, _judge(bench))


def _reconstructions(bench: Bench) -> Iterator[Row]:
    import torch  # seconds to load, and the sizes are known before
    from diffusers import AutoencoderKL

    from terroir.tiny.training.vae import judge

    torch.set_num_threads(bench.machine.cores)
    for look, decibel in judge(AutoencoderKL.from_pretrained(BASE_DIR / "vae").eval()).items():
        target = Target(at_least=29) if look == "base" else Target(at_least=25) if look in _EXAMPLES else None
        yield bench.row(f"reconstruction of held-out pictures, {look}, PSNR", "dB", decibel, target=target)


def _judge(bench: Bench) -> dict[str, dict[str, float]]:
    out = bench.work / "judged"
    # The judge takes held-out scenes in order of subject, 238 in all: fewer pictures would leave subjects out.
    pictures = bench.count(240, 20)
    kept = CHECKOUT / "build" / "benchmarks"
    kept.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "terroir.tiny.training.judge", "--base", str(BASE_DIR), "--out", str(out)),
        *("--pictures", str(pictures), "--classifier", str(kept / f"classifier-{_classifier_key()}.pt")),
    ]
    bench.say("the judge trains its classifier (first time only) and draws; some minutes")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    figures: dict[str, dict[str, float]] = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    return figures


def judgement_rows(bench: Bench, figures: dict[str, dict[str, float]]) -> Iterator[Row]:
    """Rows from the judge's figures.json: the classifier's own accuracy, then that of generated pictures."""
    own = figures[_CLASSIFIER]
    for about, shares in figures.items():
        for attribute, share in shares.items():
            peer: dict[str, Any] = {} if about == _CLASSIFIER else {"peer": own[attribute], "peer_name": _CLASSIFIER}
            target = None if about == _CLASSIFIER else _TARGETS.get(attribute)
            yield bench.row(f"{attribute} named right, {about}", "share", share, target=target, **peer)


def _classifier_key() -> str:
    """Changes with the judge and with the world that it learns from, so that no old classifier judges a new world."""
    package = CHECKOUT / "services" / "terroir" / "tiny"
    digest = hashlib.sha256()
    for path in sorted([package / "training" / "judge.py", *(package / "world").glob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
