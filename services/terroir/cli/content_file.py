"""Files of contents for `terroir covers prepare`: YAML, JSON, CSV, or a line `key<TAB>prompt` each.

YAML is read as nodes, not as values: every content keeps its line, and keys `007`, `NO` or `1e3` stay as typed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from terroir.client import CoverContent
from terroir.common.errors import InvalidArgument
from terroir.common.validation import did_you_mean

MAX_CONTENTS: Final = 10_000
_MAX_KEY_CHARACTERS: Final = 256
_MAX_PROMPT_CHARACTERS: Final = 2000
_FIELDS: Final = ("key", "prompt", "negative_prompt")
_NAMED_ERRORS: Final = 5

_Line = tuple[int, CoverContent | str]
"""Line number, from 1, with a content or what is wrong there."""


def read_contents(path: Path) -> list[CoverContent]:
    """Contents of a file, by its ending; raises InvalidArgument.

    CONTENT_FILE_INVALID names the first lines that are wrong, CONTENT_FILE_UNREADABLE a file that is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read {path}: {error}", reason="CONTENT_FILE_UNREADABLE") from error
    try:
        lines = list(_READERS.get(path.suffix.lower(), _plain)(text))
    except (yaml.YAMLError, csv.Error) as error:
        raise _invalid(f"{path}: {error}") from error
    except InvalidArgument as error:
        raise _invalid(f"{path}: {error}") from error
    found, wrong, first = [], [], dict[str, int]()
    for number, each in lines:
        problem = each if isinstance(each, str) else _problem(each, first.get(each.key))
        if problem:
            wrong.append(f"line {number}: {problem}")
        elif isinstance(each, CoverContent):
            first[each.key] = number
            found.append(each)
    if wrong:
        more = f" and {len(wrong) - _NAMED_ERRORS} more" if len(wrong) > _NAMED_ERRORS else ""
        raise _invalid(f"{path}: {'; '.join(wrong[:_NAMED_ERRORS])}{more}")
    if not 1 <= len(found) <= MAX_CONTENTS:
        raise _invalid(f"{path} has {len(found)} contents; it needs 1 to {MAX_CONTENTS}: split it")
    return found


def _problem(content: CoverContent, before: int | None) -> str:
    if not 1 <= len(content.key) <= _MAX_KEY_CHARACTERS:
        return f"a key of {len(content.key)} characters; it needs 1 to {_MAX_KEY_CHARACTERS}"
    if not 1 <= len(content.prompt) <= _MAX_PROMPT_CHARACTERS:
        return f"a prompt of {len(content.prompt)} characters; it needs 1 to {_MAX_PROMPT_CHARACTERS}"
    if len(content.negative_prompt) > _MAX_PROMPT_CHARACTERS:
        return f"a negative prompt of {len(content.negative_prompt)} characters; at most {_MAX_PROMPT_CHARACTERS}"
    return f"{content.key[:40]!r} stands in line {before} already; keep one" if before is not None else ""


def _plain(text: str) -> Iterator[_Line]:
    for number, line in enumerate(text.splitlines(), 1):
        key, tab, prompt = line.partition("\t")
        if tab:
            yield number, CoverContent(key.strip(), prompt.strip())
        elif line.strip():
            yield number, f"no tab in {line[:40]!r}; write key, a tab, prompt"


def _table(text: str) -> Iterator[_Line]:
    delimiter = max((",", ";", "\t"), key=text.partition("\n")[0].count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns = [(column or "").strip().lower() for column in rows.fieldnames or ()]
    if missing := [column for column in _FIELDS[:2] if column not in columns]:
        raise _invalid(f"line 1 lacks {', '.join(missing)}; it names the columns: {', '.join(_FIELDS)}")
    if unknown := [column for column in columns if column not in _FIELDS]:
        raise _invalid(_unknown(unknown[0]))
    rows.fieldnames = columns
    for row in rows:
        told = {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)}
        if None in row:
            yield rows.line_num, f"more than {len(columns)} columns; put texts with {delimiter!r} into quotes"
        else:
            yield rows.line_num, CoverContent(told["key"], told["prompt"], told.get("negative_prompt", ""))


def _nodes(text: str) -> Iterator[_Line]:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        for key, value in root.value:
            line = key.start_mark.line + 1
            texts = isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)
            yield line, CoverContent(_text(key), _text(value)) if texts else "write key: prompt"
    elif isinstance(root, yaml.SequenceNode):
        for node in root.value:
            yield node.start_mark.line + 1, _content(node)
    else:
        raise _invalid("it has to be a map of prompts by key, or a list of contents with key and prompt")


def _content(node: yaml.Node) -> CoverContent | str:
    if not isinstance(node, yaml.MappingNode):
        return f"a content has fields: {', '.join(_FIELDS)}"
    told: dict[str, str] = {}
    for label, value in node.value:
        name = str(label.value)
        if name not in _FIELDS:
            return _unknown(name)
        if not isinstance(value, yaml.ScalarNode):
            return f"{name} has to be text"
        told[name] = _text(value)
    return CoverContent(told.get("key", ""), told.get("prompt", ""), told.get("negative_prompt", ""))


def _text(node: yaml.Node) -> str:
    if node.tag == "tag:yaml.org,2002:null":
        return ""
    # JSON writes 🫖 as two escapes, which YAML takes for two characters.
    return str(node.value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unknown(name: str) -> str:
    return f"no field {name[:40]!r}{did_you_mean(name, _FIELDS)}; known are {', '.join(_FIELDS)}"


def _invalid(message: str) -> InvalidArgument:
    return InvalidArgument(message, reason="CONTENT_FILE_INVALID")


_READERS: Final = {".yaml": _nodes, ".yml": _nodes, ".json": _nodes, ".csv": _table}
