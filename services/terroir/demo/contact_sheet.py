"""The contact sheet: one PNG, and one HTML page that carries its pictures with it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Final

from jinja2 import Environment
from PIL import Image, ImageDraw, ImageFont

from terroir.demo.measure import ColumnFigures
from terroir.demo.plan import PROMPTS, SEEDS, Column, Style
from terroir.demo.steps import Pictures

_CELL: Final = 128
_GAP: Final = 4
_HEAD: Final = 84
_LABEL: Final = 176

_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Terroir: contact sheet</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #faf8f4 }
  table { border-collapse: collapse } th, td { padding: 6px 10px; text-align: left; vertical-align: top }
  th { font-weight: 600 } td.p { max-width: 11rem } img { width: 96px; image-rendering: pixelated; margin: 1px }
  .good { color: #176b2c } .bad { color: #a3261d } .set img { width: 64px }
</style>
<h1>Terroir: contact sheet</h1>
<p>Two styles, each taught by {{ pictures_each }} pictures, drawn on request by the inference server. Same prompts and
same seeds in every column; AI-generated.</p>
{% for style in styles %}
<h2>{{ style.title }}</h2><p>{{ style.description }} Some of the pictures that taught it:</p>
<p class="set">{% for image in sets[style.adapter] %}<img src="{{ image }}" alt="">{% endfor %}</p>
{% endfor %}
<h2>Pictures</h2>
<table>
<tr><th></th>{% for c in figures %}<th>{{ c.title }}</th>{% endfor %}</tr>
{% for style in styles %}
<tr><td class="p">distance to {{ style.title }}, ours / base</td>
{% for c in figures %}{% set d = c.distance[style.adapter] %}
<td class="{{ 'good' if d < 1 else '' }}">{{ '%.2f' % d }}</td>{% endfor %}</tr>
{% endfor %}
<tr><td class="p">prompt agreement, ours / base</td>
{% for c in figures %}
<td class="{{ 'bad' if c.agreement < 0.8 else '' }}">{{ '%.2f' % c.agreement }}</td>{% endfor %}</tr>
{% for row in rows %}
<tr><td class="p">{{ row.prompt }}</td>
{% for cell in row.cells %}<td>{% for image in cell %}<img src="{{ image }}" alt="">{% endfor %}</td>{% endfor %}</tr>
{% endfor %}
</table>
<p>Distance: tiny CLIP embeddings and colour / patch statistics, means over the set in units of its spread; 1 is the
base, 0 the style's own pictures. Agreement: cosine of the tiny CLIP between picture and prompt.</p>
</html>
"""


def write_png(
    path: Path, pictures: Pictures, columns: tuple[Column, ...], figures: list[ColumnFigures], styles: list[Style]
) -> None:
    """Every prompt a row, every column its pictures side by side, the figures on top."""
    width = _LABEL + len(columns) * (_column_width() + 3 * _GAP)
    page = Image.new("RGB", (width, _HEAD + len(PROMPTS) * (_CELL // 2 + _GAP)), (250, 248, 244))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    pen.text(
        (_GAP, _GAP),
        "\n".join(["", *(f"distance to {s.title}" for s in styles), "prompt agreement"]),
        (60, 60, 60),
        font,
        spacing=4,
    )
    pen.text((_GAP, _HEAD - 18), "(ours / base)", (60, 60, 60), font)
    for x, column, figure in zip(_lefts(len(columns)), columns, figures, strict=True):
        lines = [column.title, *(f"{figure.distance[s.adapter]:.2f}" for s in styles), f"{figure.agreement:.2f}"]
        pen.text((x, _GAP), "\n".join(lines), (20, 20, 20), font, spacing=4)
        for row, prompt in enumerate(PROMPTS):
            y = _HEAD + row * (_CELL // 2 + _GAP)
            for index, seed in enumerate(SEEDS):
                cell = pictures[column.title, prompt, seed].resize((_CELL // 2, _CELL // 2), Image.Resampling.LANCZOS)
                page.paste(cell, (x + index * (_CELL // 2 + 2), y))
    for row, prompt in enumerate(PROMPTS):
        pen.text((_GAP, _HEAD + row * (_CELL // 2 + _GAP) + 8), _wrapped(prompt, 24), (20, 20, 20), font)
    page.resize((page.width * 2, page.height * 2), Image.Resampling.LANCZOS).save(path, optimize=True)


def write_html(
    path: Path, pictures: Pictures, columns: tuple[Column, ...], figures: list[ColumnFigures], styles: list[Style]
) -> None:
    """One page without any outside reference."""
    sets = {style.adapter: style.pictures() for style in styles}
    page = Environment(autoescape=True).from_string(_PAGE).render(
        pictures_each=" and ".join(str(len(found)) for found in sets.values()),
        styles=styles,
        sets={adapter: [_data_url(image) for image in found[:12]] for adapter, found in sets.items()},
        figures=figures,
        rows=[
            {
                "prompt": prompt,
                "cells": [[_data_url(pictures[c.title, prompt, seed]) for seed in SEEDS] for c in columns],
            }
            for prompt in PROMPTS
        ],
    )  # fmt: skip
    path.write_text(page, encoding="utf-8")


def _column_width() -> int:
    return len(SEEDS) * (_CELL // 2 + 2)


def _lefts(count: int) -> list[int]:
    return [_LABEL + index * (_column_width() + 3 * _GAP) for index in range(count)]


def _wrapped(text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
