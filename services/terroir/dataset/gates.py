"""Quality gates: hold measurements against thresholds. A changed threshold judges again without reading a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from terroir.dataset.measure import MEASURES_VERSION
from terroir.dataset.model import Finding, Gate, Measurement, Picture, Verdict
from terroir.dataset.thresholds import Thresholds


@dataclass(frozen=True)
class Likeness:
    """The earlier pictures that one picture repeats, by file name; empty means none."""

    same_pixels_as: str = ""
    looks_like: str = ""
    differing_bits: int = 64


def gates_version(thresholds: Thresholds) -> str:
    """Identifier of the measurements and thresholds in force: equal values, equal identifier."""
    text = json.dumps({"measures": MEASURES_VERSION, **asdict(thresholds)}, sort_keys=True)
    return "gates-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def judge(picture: Picture, likeness: Likeness, thresholds: Thresholds) -> tuple[Finding, ...]:
    """Findings of all gates that did not pass, in the order of `Gate`."""
    if picture.measured is None:
        return tuple(_unreadable(picture))
    return (
        *_shape(picture.measured, thresholds),
        *_light(picture.measured, thresholds),
        *_repeats(likeness, thresholds),
    )


def worst(findings: tuple[Finding, ...]) -> Verdict:
    """Verdict of a picture: the worst of its findings."""
    return max((finding.verdict for finding in findings), default=Verdict.PASS)


def judge_count(usable: int, thresholds: Thresholds) -> tuple[Finding, ...]:
    """Findings about the size of a whole set; only warnings, since people know how much they have."""
    if usable < thresholds.few_pictures:
        gate, limit, step = Gate.TOO_FEW, thresholds.few_pictures, "add pictures, or expect the style to be memorised"
    elif usable > thresholds.many_pictures:
        gate, limit, step = Gate.TOO_MANY, thresholds.many_pictures, "keep the pictures that show the style best"
    else:
        return ()
    message = f"{usable} usable pictures, advised are {thresholds.few_pictures} to {thresholds.many_pictures}; {step}"
    return (Finding(gate, Verdict.WARN, float(usable), float(limit), message),)


def _unreadable(picture: Picture) -> Iterator[Finding]:
    fact = picture.unreadable
    if fact is None:
        raise ValueError(f"picture {picture.digest} has neither a measurement nor a reason why not")
    yield Finding(fact.gate, Verdict.REJECT, fact.value, fact.threshold, fact.message)


def _shape(measured: Measurement, limits: Thresholds) -> Iterator[Finding]:
    if measured.animated:
        message = "several frames, only the first is used; export the frame that you want as PNG"
        yield Finding(Gate.ANIMATED, Verdict.WARN, 2.0, 1.0, message)
    side = min(measured.width, measured.height)
    if side < limits.minimum_side:
        message = (
            f"short side of {side} pixels is below {limits.minimum_side}; import a larger original (for a base of "
            "smaller pictures set TERROIR_DATASET_GATES__MINIMUM_SIDE)"
        )
        yield Finding(Gate.MINIMUM_SIDE, Verdict.REJECT, float(side), float(limits.minimum_side), message)
    yield from _falling(
        Gate.BLUR, measured.sharpness, limits.sharpness_warn, limits.sharpness_quarantine,
        "sharpness (Laplacian variance over variance)", "use a sharper picture",
    )  # fmt: skip


def _light(measured: Measurement, limits: Thresholds) -> Iterator[Finding]:
    yield from _falling(
        Gate.TOO_DARK, measured.highlights, limits.highlights_warn, limits.highlights_quarantine,
        "brightness of the lightest hundredth (0 to 1)", "brighten it or leave it out",
    )  # fmt: skip
    yield from _rising(
        Gate.TOO_LIGHT, measured.shadows, limits.shadows_warn, limits.shadows_quarantine,
        "brightness of the darkest hundredth (0 to 1)", "use a picture with more contrast",
    )  # fmt: skip
    yield from _falling(
        Gate.LOW_INFORMATION, measured.entropy_bits, limits.entropy_warn_bits, limits.entropy_quarantine_bits,
        "entropy in bits", "use a picture that shows more",
    )  # fmt: skip
    longer, shorter = max(measured.width, measured.height), min(measured.width, measured.height)
    yield from _rising(
        Gate.ODD_ASPECT, longer / shorter, limits.aspect_warn, limits.aspect_quarantine,
        "long side over short side", "crop it",
    )  # fmt: skip


def _repeats(likeness: Likeness, limits: Thresholds) -> Iterator[Finding]:
    if likeness.same_pixels_as:
        message = f"same pixels as {likeness.same_pixels_as!r}, which is kept; nothing to do"
        yield Finding(Gate.EXACT_DUPLICATE, Verdict.REJECT, 1.0, 1.0, message)
    elif likeness.looks_like and likeness.differing_bits <= limits.near_duplicate_bits:
        message = (
            f"{likeness.differing_bits} of 64 hash bits differ from {likeness.looks_like!r}; look at both and "
            "import only the better one"
        )
        value, threshold = float(likeness.differing_bits), float(limits.near_duplicate_bits)
        yield Finding(Gate.NEAR_DUPLICATE, Verdict.WARN, value, threshold, message)


def _falling(gate: Gate, value: float, warn: float, quarantine: float, what: str, step: str) -> Iterator[Finding]:
    """A gate whose small values are bad."""
    if value < warn:
        grave = value < quarantine
        yield _crossed(gate, value, quarantine if grave else warn, grave, f"{what} {value:.3g} is below", step)


def _rising(gate: Gate, value: float, warn: float, quarantine: float, what: str, step: str) -> Iterator[Finding]:
    """A gate whose large values are bad."""
    if value > warn:
        grave = value > quarantine
        yield _crossed(gate, value, quarantine if grave else warn, grave, f"{what} {value:.3g} is above", step)


def _crossed(gate: Gate, value: float, threshold: float, grave: bool, what: str, step: str) -> Finding:
    verdict = Verdict.QUARANTINE if grave else Verdict.WARN
    return Finding(gate, verdict, value, threshold, f"{what} {threshold:.3g}; {step}")
