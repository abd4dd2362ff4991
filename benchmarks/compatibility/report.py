"""Score against survival: which score, how well it ranks, and the files that say so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.compatibility.candidates import CANDIDATES, choose, fit
from benchmarks.compatibility.drawing import PROMPTS, SEEDS, STEPS, WEIGHT
from benchmarks.compatibility.rank_statistics import mantel_p, permutation_p, spearman
from benchmarks.compatibility.scatter import Plot, Point, draw
from benchmarks.compatibility.styles import ALL, CONFIRMING, RANDOM, STYLES, TRAINING_STEPS
from benchmarks.compatibility.survival import Survival
from benchmarks.machine import Machine
from terroir.lora.compatibility import HIGH_FROM, MEDIUM_FROM, Overlap, interference, level_of

_PairName = tuple[str, str]
_RELATED: Final = frozenset({"jiangnan-ink", "jiangnan-ink-again", "sichuan-hotpot", "ink-and-hotpot"})
_DIFFERENT, _ALIKE, _RANDOM, _NEW = "looks by hand", "near-duplicates", "with a random look", "confirming"
_COLOURS: Final = {
    _DIFFERENT: (38, 98, 168), _ALIKE: (214, 108, 32), _RANDOM: (110, 170, 110), _NEW: (170, 90, 170),
}  # fmt: skip
_FLOOR: Final = -1.5
JUDGED: Final = ("calibration", "looks by hand", "confirming")
_TAUGHT_BELOW: Final = 0.85
"""Distance of a style alone to its pictures, as a share of the base's, below which it counts as taught."""


def report(
    overlaps: Mapping[_PairName, Overlap],
    survival: Mapping[_PairName, Survival],
    distances: Mapping[str, Mapping[str, float]],
    machine: Machine,
) -> dict[str, Any]:
    """Everything that was found, for JSON."""
    parts = partition(list(overlaps), distances)
    half = parts["chosen on"]
    lesser = {pair: survival[pair].lesser for pair in overlaps}
    return {
        "command": "python -m benchmarks.compatibility",
        "machine": asdict(machine),
        "set-up": {
            "styles": [
                {"name": s.name, "seed": s.seed, "rank": s.rank, "target_modules": s.targets, "looks": len(s.looks)}
                for s in ALL
            ],
            "training_steps": TRAINING_STEPS,
            "weight": WEIGHT,
            "prompts": PROMPTS,
            "seeds": SEEDS,
            "sampler": f"dpmpp-2m, {STEPS} steps, guidance 4",
            "survival": "(d(base) - d(stacked)) / (d(base) - d(alone at that weight)), of the style that keeps less",
        },
        "chosen": choose([overlaps[pair] for pair in half], [lesser[pair] for pair in half]).name,
        "fit": dict(
            zip(
                ("half_lost", "spread"),
                fit([overlaps[p].cosine for p in half], [lesser[p] for p in half]),
                strict=True,
            )
        ),
        "candidates": [
            {
                "score": candidate.name,
                "eligible": candidate.knows_opposites,
                **{
                    f"rho, {name}": _rho([candidate.score(overlaps[p]) for p in part], [lesser[p] for p in part])
                    for name, part in parts.items()
                },
            }
            for candidate in CANDIDATES
        ],
        "interference": {
            **{
                f"rho, {name}": _rho([interference(overlaps[p]) for p in part], [lesser[p] for p in part])
                for name, part in parts.items()
            },
            **{f"pairs, {name}": len(part) for name, part in parts.items()},
            **{f"{kind}, {name}": p for name in JUDGED for kind, p in _worth(parts[name], overlaps, lesser).items()},
        },
        "levels": {name: _levels(part, overlaps, lesser) for name, part in parts.items()},
        "rows": [_row(pair, overlaps[pair], survival[pair], _part_of(pair, parts)) for pair in overlaps],
        "distances": {c: {s: round(d, 4) for s, d in row.items()} for c, row in distances.items()},
    }


def partition(pairs: Sequence[_PairName], distances: Mapping[str, Mapping[str, float]]) -> dict[str, list[_PairName]]:
    """Which pairs are for what; some are in several parts.

    A random look that its training did not teach has nothing that could survive: its pairs are left out.
    """
    by_hand, confirming = ({style.name for style in styles} for styles in (STYLES, CONFIRMING))
    weak = {
        style.name
        for style in (*RANDOM, *CONFIRMING)
        if distances[style.name][style.name] >= _TAUGHT_BELOW * distances["base"][style.name]
    }
    taught = [pair for pair in pairs if not set(pair) & weak]
    calibration = [pair for pair in taught if not set(pair) & confirming]
    return {
        "chosen on": calibration[::2],
        "held out": calibration[1::2],
        "calibration": calibration,
        "looks by hand": [pair for pair in calibration if set(pair) <= by_hand],
        "looks by hand, no near-duplicates": [
            pair for pair in calibration if set(pair) <= by_hand and not related(pair)
        ],
        "with random looks": [pair for pair in calibration if not set(pair) <= by_hand],
        "confirming": [pair for pair in taught if set(pair) & confirming],
        "all": taught,
    }


def _part_of(pair: _PairName, parts: Mapping[str, Sequence[_PairName]]) -> str:
    return next((name for name in ("chosen on", "held out", "confirming") if pair in parts[name]), "left out")


def related(pair: _PairName) -> bool:
    """Whether the two share pictures' looks: the same style trained twice, or a mixture with a part of it."""
    return set(pair) <= _RELATED and set(pair) != {"jiangnan-ink", "sichuan-hotpot"} and set(pair) != {
        "jiangnan-ink-again", "sichuan-hotpot",
    }  # fmt: skip


def save(found: Mapping[str, Any], json_path: Path, plot_path: Path) -> None:
    """Write the figures and the plot."""
    json_path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rows = [row for row in found["rows"] if row["part"] != "left out"]
    points = [Point(row["interference"], row["survival_lesser"], _group(row)) for row in rows]
    points.sort(key=lambda point: list(_COLOURS).index(point.group), reverse=True)
    rho = found["interference"]
    plot = Plot(
        title=f"Spearman rho at {WEIGHT} + {WEIGHT} on the tiny base: {rho['rho, looks by hand']:.2f} looks by hand, "
        f"{rho['rho, with random looks']:.2f} with a random one, {rho['rho, confirming']:.2f} confirming",
        x_title="interference score, from the weights alone",
        y_title=f"share of the lesser style that survives, cut at {_FLOOR}",
        y_floor=_FLOOR,
        x_lines=((MEDIUM_FROM, "medium"), (HIGH_FROM, "high")),
        colours=_COLOURS,
    )
    draw(plot_path, plot, points)


def _group(row: Mapping[str, Any]) -> str:
    if row["part"] == "confirming":
        return _NEW
    if any(name.startswith("random-") for name in (row["first"], row["second"])):
        return _RANDOM
    return _ALIKE if related((row["first"], row["second"])) else _DIFFERENT


def _row(pair: _PairName, overlap: Overlap, survival: Survival, part: str) -> dict[str, Any]:
    score = interference(overlap)
    figures = {
        "cosine": overlap.cosine, "input_overlap": overlap.input_overlap, "output_overlap": overlap.output_overlap,
        "first_norm": overlap.first_norm, "second_norm": overlap.second_norm,
        "interference": score, "survival_first": survival.first, "survival_second": survival.second,
        "survival_lesser": survival.lesser,
    }  # fmt: skip
    return {
        "first": pair[0],
        "second": pair[1],
        **{name: round(value, 4) for name, value in figures.items()},
        "shared_layers": overlap.shared_layers,
        "layers": overlap.layers,
        "level": level_of(score).name,
        "part": part,
    }


def _levels(
    pairs: Sequence[_PairName], overlaps: Mapping[_PairName, Overlap], lesser: Mapping[_PairName, float]
) -> list[dict[str, Any]]:
    found: dict[str, list[float]] = {}
    for pair in pairs:
        found.setdefault(level_of(interference(overlaps[pair])).name, []).append(lesser[pair])
    return [
        {
            "level": name, "pairs": len(values), "survival_mean": round(sum(values) / len(values), 3),
            "survival_least": round(min(values), 3), "survival_most": round(max(values), 3),
        }
        for name, values in sorted(found.items())
    ]  # fmt: skip


def _worth(
    pairs: Sequence[_PairName], overlaps: Mapping[_PairName, Overlap], lesser: Mapping[_PairName, float]
) -> dict[str, float]:
    score = {pair: interference(overlaps[pair]) for pair in pairs}
    loss = {pair: -lesser[pair] for pair in pairs}
    return {
        "p by pairs permuted": round(permutation_p(list(score.values()), list(loss.values())), 5),
        "p by adapters permuted": round(mantel_p(score, loss), 5),
    }


def _rho(score: Any, survival: Any) -> float:
    """Positive where a higher score means that less survives."""
    return round(-spearman(list(score), list(survival)), 3)
