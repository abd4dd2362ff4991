"""Files of contents: what people write, and what is wrong in them by its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from terroir.cli.content_file import read_contents
from terroir.client import CoverContent
from terroir.common.errors import InvalidArgument

TWO = [CoverContent("007", "a red teapot, 茶"), CoverContent("no", "a bridge: old", "people")]


def written(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a.yaml",
            '- key: 007\n  prompt: a red teapot, 茶\n- {key: no, prompt: "a bridge: old", negative_prompt: people}\n',
        ),
        ("a.json", json.dumps([{"key": c.key, "prompt": c.prompt, "negative_prompt": c.negative_prompt} for c in TWO])),
        ("a.csv", 'key,prompt,negative_prompt\n007,"a red teapot, 茶",\nno,a bridge: old,people\n'),
        ("a.csv", "\ufeffKey; Prompt;negative_prompt\r\n007;a red teapot, 茶;\r\nno;a bridge: old;people\r\n"),
    ],
)
def test_contents_are_read_as_they_were_written(tmp_path: Path, name: str, text: str) -> None:
    assert read_contents(written(tmp_path, name, text)) == TWO


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.txt", "007\ta red teapot\n\nno\ta\tbridge\n"), ("a.yml", '007: a red teapot\nno: "a\\tbridge"\n')],
)
def test_prompts_by_key_are_enough(tmp_path: Path, name: str, text: str) -> None:
    found = read_contents(written(tmp_path, name, text))
    assert found == [CoverContent("007", "a red teapot"), CoverContent("no", "a\tbridge")]


def test_escapes_of_json_are_one_character(tmp_path: Path) -> None:
    """A program writes 🫖 as two escapes, which a reader of YAML takes for two halves that no message can hold."""
    assert read_contents(written(tmp_path, "a.json", json.dumps({"🫖": "a 🫖"}))) == [CoverContent("🫖", "a 🫖")]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "a\tb\nc d\n", "line 2: no tab in 'c d'"),
        ("a.txt", "a\tb\n\tc\n", "line 2: a key of 0 characters"),
        ("a.txt", "a\t\n", "line 1: a prompt of 0 characters"),
        ("a.txt", f"{'k' * 257}\tb\n", "line 1: a key of 257 characters; it needs 1 to 256"),
        ("a.txt", f"a\t{'p' * 2001}\n", "line 1: a prompt of 2001 characters"),
        ("a.txt", "a\tb\n\nc\td\na\te\n", "line 4: 'a' stands in line 1 already"),
        ("a.txt", "\n", "has 0 contents"),
        ("a.txt", "".join(f"{n}\ta\n" for n in range(10_001)), "has 10001 contents; it needs 1 to 10000"),
        ("a.txt", "a\n" * 9, "line 5: no tab in 'a'; write key, a tab, prompt and 4 more"),
        ("a.csv", "key,promt\na,b\n", "line 1 lacks prompt"),
        ("a.csv", "key,prompt,negativ_prompt\na,b,c\n", "did you mean negative_prompt"),
        ("a.csv", "key,prompt\na,b,c\n", "line 2: more than 2 columns"),
        ("a.csv", "key,prompt\na\n", "line 2: a prompt of 0 characters"),
        ("a.csv", 'key,prompt\na,"b\n', "unexpected end of data"),
        ("a.yaml", "- key: a\n  promt: b\n", "line 1: no field 'promt'"),
        ("a.yaml", "- key: a\n  prompt: b\n- c\n", "line 3: a content has fields"),
        ("a.yaml", "- key: a\n  prompt: [b]\n", "line 1: prompt has to be text"),
        ("a.yaml", "- key: a\n", "line 1: a prompt of 0 characters"),
        ("a.yaml", "a: b\nc: {d: e}\n", "line 2: write key: prompt"),
        ("a.yaml", "a: b\na: c\n", "line 2: 'a' stands in line 1 already"),
        ("a.yaml", "a: [\n", "line 2"),
        ("a.yaml", "just words\n", "a map of prompts by key"),
        ("a.json", "", "a map of prompts by key"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_contents(written(tmp_path, name, text))
    assert refused.value.reason == "CONTENT_FILE_INVALID"
    assert said in str(refused.value), refused.value
    assert str(tmp_path / name) in str(refused.value)


def test_what_is_no_text_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_contents(written(tmp_path, "a.csv", "ключ", "utf-16"))
    assert refused.value.reason == "CONTENT_FILE_UNREADABLE"
