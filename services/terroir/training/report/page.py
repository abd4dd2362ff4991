"""The report as one HTML file without any outside reference."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from PIL import Image

from terroir.training.judging.judgement import Evidence, JudgedCheckpoint, Judgement
from terroir.training.judging.verdicts import Scores, Thresholds
from terroir.training.report.chart import line_chart
from terroir.training.report.events import Curves

_CHARTS: Final = (
    ("loss", "loss (heavy: running mean)", True),
    ("learning_rate", "learning rate", False),
    ("text_encoder_learning_rate", "learning rate of the text encoder", False),
    ("gradient_norm", "gradient norm before clipping (heavy: running mean)", True),
    ("loss_scale", "loss scale (fp16)", False),
    ("skipped_batches", "batches skipped, not finite", False),
)
_LARGE: Final = 96 * 1024
"""Bytes above which a picture goes into the page as JPEG."""
_WIDEST: Final = 280
"""Pixels up to which a sheet is enlarged, so that those of several steps stand side by side."""
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5d6675; --line: #d9dde4; --page: #fbfbf9; --card: #fff;
  --accent: #1f5fae; --good: #176b2c; --bad: #a3261d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec; --soft: #9aa3b2; --line: #363c47; --page: #15181d;
  --card: #1c2027; --accent: #7db2f0; --good: #6fcf87; --bad: #f08a80; } }
* { box-sizing: border-box } body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 68rem }
h1 { font-size: 1.5rem; margin: 0 0 .25rem } h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem } p { max-width: 46rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 1rem 0 }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } .wide { overflow-x: auto }
th, td { padding: .35rem .8rem .35rem 0; text-align: right; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child, th.t, td.t { text-align: left } th { font-weight: 600; vertical-align: bottom }
th small { display: block; font-weight: 400; color: var(--soft) } tr.chosen td { font-weight: 600 }
.good { color: var(--good) } .bad { color: var(--bad) } .note { color: var(--soft) }
.verdict { border-left: 4px solid var(--line); padding: .1rem 0 .1rem 1rem } .verdict.good { border-color: var(--good) }
.verdict.bad { border-color: var(--bad) } .verdict p { color: var(--ink); margin: .3rem 0 }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1.25rem }
figure { margin: 0 } figcaption { font-size: .85rem; color: var(--soft); margin-bottom: .2rem }
svg { width: 100%; height: auto; display: block } svg text { font-size: 11px; fill: var(--soft) }
svg .grid { stroke: var(--line) } svg .mark { stroke: var(--good); stroke-dasharray: 4 3 }
svg polyline { fill: none; stroke: var(--accent); stroke-width: 1.8 }
svg .raw { stroke-width: .8; opacity: .4 } svg .dot { fill: var(--accent) }
.row { display: flex; flex-wrap: wrap; gap: 1.25rem } img { display: block; max-width: 100%; height: auto }
img.small { image-rendering: pixelated } .pairs { display: grid; gap: 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)) }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); padding: .75rem; font-size: .85rem }
summary { cursor: pointer; color: var(--accent) }
"""


@dataclass(frozen=True)
class Report:
    """Everything that a page shows."""

    facts: Mapping[str, str]
    """What the run is, in the order shown; the first names it."""
    config_yaml: str
    curves: Curves
    judgement: Judgement | None
    pictures: Mapping[str, bytes]
    """PNG files of evidence and samples of the judgement, by digest."""
    samples: Mapping[int, bytes]
    """PNG files of `sample_prompts`, by step."""
    failure: str = ""


def page_of(report: Report) -> str:
    """The page's text."""
    title = f"Terroir: {next(iter(report.facts.values()), 'a run')}"
    body = "\n".join(part for part in _parts(report) if part)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{escape(title)}</title><style>{_STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def _parts(report: Report) -> Iterator[str]:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.facts.items())
    yield f"<dl>{rows}</dl>"
    if report.failure:
        yield f'<div class="verdict bad"><p><b>Failed.</b> {escape(report.failure)}</p></div>'
    judgement = report.judgement
    yield _verdict(judgement)
    yield _curves(report.curves, judgement.chosen_step if judgement else 0)
    yield _samples(report)
    if judgement:
        yield _evidence(judgement, report.pictures)
    yield (
        f"<h2>Configuration</h2><details><summary>Every key of the run</summary><pre>{escape(report.config_yaml)}"
        "</pre></details>"
    )


def _verdict(judgement: Judgement | None) -> str:
    if judgement is None:
        return (
            '<h2>Verdict</h2><p class="note">There is no judgement: the run has not come so far, or its publish_gate '
            "is off.</p>"
        )
    passed = judgement.verdict == "pass"
    chosen = f"Step {judgement.chosen_step} is published." if judgement.chosen_step else "Nothing is published."
    told = f"<p><b>{escape(judgement.verdict)}.</b> {chosen}</p>"
    told += "".join(f"<p>{escape(one)}</p>" for one in judgement.advice)
    rows = "".join(_row(one, judgement) for one in judgement.checkpoints)
    left = ""
    if judgement.left_out:
        steps = ", ".join(map(str, judgement.left_out))
        left = f" Not looked at, as later ones are better: step {steps}."
    return (
        f'<h2>Verdict</h2><div class="verdict {"good" if passed else "bad"}">{told}</div>'
        f'<div class="wide"><table><tr>{_head(judgement.thresholds)}</tr>{rows}</table></div>'
        f'<p class="note">Style gain is the way gone from the base\'s look (0) to that of the training pictures (1). '
        "Agreement and diversity are shares of the base's own. Copies are pictures, drawn from what the adapter was "
        "trained with, that repeat a training picture. Each figure is an estimate from few pictures: other seeds move "
        f"it.{left} {judgement.pictures} pictures in {judgement.seconds:.0f} s.</p>"
    )


def _head(bounds: Thresholds) -> str:
    heads = (
        ("step", "", ""), ("verdict", "", "t"), ("style gain", f"≥ {bounds.min_style_gain:g}", ""),
        ("prompt agreement", f"≥ {bounds.min_prompt_agreement:g}", ""),
        ("diversity", f"≥ {bounds.min_diversity:g}", ""),
        ("copies", f"≤ {bounds.max_memorisation:.0%}", ""), ("closest by pixels", "of the bound", ""),
        ("quality", "of those that pass", ""),
    )  # fmt: skip
    return "".join(f'<th class="{kind}">{name}<small>{below}</small></th>' for name, below, kind in heads)


def _row(one: JudgedCheckpoint, judgement: Judgement) -> str:
    kind = "good" if one.verdict == "pass" else "bad"
    cells = [f"<td>{one.step}</td>", f'<td class="t {kind}">{escape(one.verdict)}</td>']
    if one.scores is None:
        cells.append(f'<td class="t" colspan="6">{escape(one.measured.broken)}</td>')
    else:
        cells += _figures(one.scores, one.failed)
    chosen = ' class="chosen"' if one.step == judgement.chosen_step else ""
    return f"<tr{chosen}>{''.join(cells)}</tr>"


def _figures(scores: Scores, failed: Sequence[str]) -> Iterator[str]:
    copies = round(scores.memorisation * scores.recalled)
    figures = (
        ("min_style_gain", f"{scores.style_gain:.2f}"),
        ("min_prompt_agreement", f"{scores.prompt_agreement:.2f}"),
        ("min_diversity", f"{scores.diversity:.2f}"),
        ("max_memorisation", f"{copies} of {scores.recalled}"),
        ("", f"{scores.nearest_pixels:.2f} / {scores.copy_bound:.2f}"),
        ("", f"{scores.quality:.2f}"),
    )
    for key, text in figures:
        yield f'<td class="{"bad" if key in failed else ""}">{text}</td>'


def _curves(curves: Curves, chosen: int) -> str:
    known = [one for one in _CHARTS if one[0] in curves]
    drawn = [line_chart(curves[name], title, smooth=smooth, marked=chosen) for name, title, smooth in known]
    if not any(drawn):
        return ""
    mark = '<p class="note">Dashed: the step that is published.</p>' if chosen else ""
    return f'<h2>Curves</h2><div class="charts">{"".join(drawn)}</div>{mark}'


def _samples(report: Report) -> str:
    parts = []
    if report.samples:
        told = "By step, the same prompts and seeds, drawn as they would be served."
        told += " A row a prompt of sample_prompts, a column a seed."
        parts.append(f'<h2>Samples during training</h2><p class="note">{told}</p>{_sheets(report.samples)}')
    judgement = report.judgement
    if judgement:
        sheets = {
            one.step: report.pictures[one.measured.samples] for one in judgement.checkpoints if one.measured.samples
        }
        prompts = "; ".join(judgement.prompts)
        parts.append(
            f'<h2>Held-out prompts</h2><p class="note">A row a prompt, a column a seed: {escape(prompts)}.</p>'
            f"{_sheets(sheets)}"
        )
    return "".join(parts)


def _sheets(sheets: Mapping[int, bytes]) -> str:
    figures = (
        f"<figure><figcaption>step {step}</figcaption>{_image(data, f'samples of step {step}', 2)}</figure>"
        for step, data in sorted(sheets.items())
    )
    return f'<div class="row">{"".join(figures)}</div>'


def _evidence(judgement: Judgement, pictures: Mapping[str, bytes]) -> str:
    shown = [one for one in judgement.checkpoints if one.measured.evidence]
    if not shown:
        return ""
    parts = [
        "<h2>Closest to training pictures</h2>",
        '<p class="note">Left what the adapter drew, right the training picture that it is closest to. A copy lies '
        "within both bounds, by pixels and by embedding.</p>",
    ]
    for one in sorted(shown, key=lambda one: (one.step != judgement.chosen_step, one.step)):
        pairs = "".join(_pair(found, pictures[found.picture]) for found in one.measured.evidence)
        is_open = one.step == judgement.chosen_step or (not judgement.chosen_step and one is shown[-1])
        copies = sum(found.is_copy for found in one.measured.evidence)
        parts.append(
            f"<details{' open' if is_open else ''}><summary>Step {one.step}: {copies} copies among the "
            f'{len(one.measured.evidence)} closest</summary><div class="pairs">{pairs}</div></details>'
        )
    return "".join(parts)


def _pair(found: Evidence, picture: bytes) -> str:
    said = '<b class="bad">copy</b>' if found.is_copy else "no copy"
    return (
        f"<figure>{_image(picture, f'drawn, and {found.training_picture}', 1)}<figcaption>{said}: pixels "
        f"{found.pixels:.2f}, embedding {found.embedding:.2f}; {escape(found.training_picture)}<br>"
        f"{escape(found.prompt)} (seed {found.seed})</figcaption></figure>"
    )


def _image(data: bytes, told: str, scale: int) -> str:
    """Small pictures enlarged, large ones as JPEG, so that the page stays light."""
    with Image.open(io.BytesIO(data)) as picture:
        width, height = picture.size
        kind = "png"
        if len(data) > _LARGE:
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, "JPEG", quality=88)
            data, kind = buffer.getvalue(), "jpeg"
    factor = scale if width * scale <= _WIDEST else 1
    encoded = base64.b64encode(data).decode()
    return (
        f'<img class="{"small" if factor > 1 else ""}" width="{width * factor}" height="{height * factor}" '
        f'alt="{escape(told)}" src="data:image/{kind};base64,{encoded}">'
    )
