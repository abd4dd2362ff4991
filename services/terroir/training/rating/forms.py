"""What a person is given: a page for the browser, and a form for a spreadsheet. Neither knows which picture is real."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator, Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

COLUMNS: Final = ("sheet", "rater", "picture", "real_or_generated", "on_brand")
"""Of the form and of what the page saves."""


def sheet_files(name: str, pictures: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Paths in the sheet's folder and contents; `pictures` are PNG files by label, in order."""
    yield "sheet.html", page(name, pictures).encode()
    # Spreadsheets take a file without the mark for Latin.
    yield "sheet.csv", form(name, list(pictures)).encode("utf-8-sig")
    for label, data in pictures.items():
        yield f"pictures/{label}.png", data


def form(name: str, labels: list[str]) -> str:
    """CSV with a row a picture, to be filled in."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\r\n")
    rows.writerow(COLUMNS)
    rows.writerows([name, "", label, "", ""] for label in labels)
    return text.getvalue()


def page(name: str, pictures: Mapping[str, bytes]) -> str:
    """A page that needs nothing but itself: no address is in it, and what it saves stays on the machine."""
    template = Template(files("terroir.training.rating").joinpath("sheet.html").read_text(encoding="utf-8"))
    return template.substitute(
        name=escape(name),
        count=len(pictures),
        cards="\n".join(_card(label, data) for label, data in pictures.items()),
        told=json.dumps({"sheet": name, "labels": list(pictures), "columns": list(COLUMNS)}).replace("<", "\\u003c"),
    )


def _card(label: str, data: bytes) -> str:
    label = escape(label)
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return f"""<fieldset class="card" id="card-{label}">
  <legend>{label}</legend>
  <img src="{source}" alt="picture {label}">
  <p>It is
    <label><input type="radio" name="kind-{label}" value="real"> real</label>
    <label><input type="radio" name="kind-{label}" value="generated"> generated</label></p>
  <p>On-brand
    <label><input type="radio" name="brand-{label}" value="yes"> yes</label>
    <label><input type="radio" name="brand-{label}" value="no"> no</label></p>
</fieldset>"""
