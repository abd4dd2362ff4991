"""The demo's plan: what is drawn, and how the sheet shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from terroir.common.errors import InvalidArgument
from terroir.demo import contact_sheet
from terroir.demo.measure import ColumnFigures
from terroir.demo.plan import PROMPTS, SEEDS, columns, prompt_for
from terroir.demo.run import load_styles

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "styles"


@pytest.fixture
def styles():
    return load_styles(EXAMPLES)


def test_every_prompt_is_of_the_world_and_every_column_but_the_base_has_a_style(styles):
    plan = columns(*styles)
    assert plan[0].weights == ()
    assert [len(column.weights) for column in plan] == [0, 1, 1, 1, 1, 2]
    assert len(set(PROMPTS)) == len(PROMPTS) and len(SEEDS) == 3


def test_prompts_carry_the_trigger_words_of_their_column(styles):
    by_adapter = {style.adapter: style for style in styles}
    base, *_, both = columns(*styles)
    assert prompt_for("a boat", base, by_adapter) == "a boat"
    assert prompt_for("a boat", both, by_adapter) == "jiangnan ink style, sichuan hotpot style, a boat"


def test_missing_examples_say_what_to_do(tmp_path):
    with pytest.raises(InvalidArgument) as caught:
        load_styles(tmp_path)
    assert caught.value.reason == "EXAMPLES_MISSING"


def test_the_sheet_shows_figures_and_needs_nothing_from_outside(styles, tmp_path):
    plan = columns(*styles)
    pictures = {
        (column.title, prompt, seed): Image.new("RGB", (64, 64), "teal")
        for column in plan
        for prompt in PROMPTS
        for seed in SEEDS
    }
    figures = [ColumnFigures(c.title, {s.adapter: 0.42 for s in styles}, 0.77) for c in plan]
    contact_sheet.write_html(tmp_path / "sheet.html", pictures, plan, figures, styles)
    contact_sheet.write_png(tmp_path / "sheet.png", pictures, plan, figures, styles)
    page = (tmp_path / "sheet.html").read_text()
    assert "0.42" in page and "0.77" in page and PROMPTS[0] in page
    assert "http" not in page.replace("<!doctype html>", "")
    assert page.count("data:image/png;base64,") == len(pictures) + 24
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000
