"""Files of recipes and regions for `terroir region import`: YAML, of which JSON is a part.

Read as nodes, not as values: every entry keeps its line, `330100` stays text, `NO` stays Norway, and `01-20` no sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import yaml

from terroir._proto.registry.v1 import recipe_pb2
from terroir._proto.registry.v1 import region_pb2 as pb
from terroir.cli.session import resource
from terroir.cli.styles import style_of
from terroir.client import Client
from terroir.common.errors import InvalidArgument, TerroirError
from terroir.common.validation import did_you_mean
from terroir.registry.regions.codes import same

MAX_ENTRIES: Final = 10_000
_STYLE: Final = ("adapters", "prompt_prefix", "negative_prompt")
_RECIPE: Final = ("id", "display_name", *_STYLE)
_SEASON: Final = ("id", "from_date", "to_date", "campaign", "saved_recipe", *_STYLE)
_REGION: Final = ("code", "display_name", "parent", "saved_recipe", "seasons", *_STYLE)


@dataclass(frozen=True)
class Entry:
    """One recipe or region of a file, or why it can't be read."""

    line: int
    """From 1."""
    name: str
    message: recipe_pb2.Recipe | pb.Region | InvalidArgument


@dataclass(frozen=True)
class Verdict:
    """What became of an entry."""

    line: int
    name: str
    reason: str = ""
    """Why it was refused, a reason code; empty if it was put."""
    message: str = ""

    def __str__(self) -> str:
        return f"{self.name} refused [{self.reason}] {self.message}" if self.reason else f"{self.name} put"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "verdict": "refused" if self.reason else "put"}


def read_entries(text: str, file: str) -> list[Entry]:
    """Recipes, then regions with parents before children; raises InvalidArgument (REGION_FILE_INVALID)."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        sections = _fields(root, ("recipes", "regions"), "the file")
        recipes = [_entry(node, "recipes", "id", _recipe) for node in _items(sections.get("recipes"))]
        regions = [_entry(node, "regions", "code", _region) for node in _items(sections.get("regions"))]
    except yaml.YAMLError as error:
        raise _invalid(f"{file} is no YAML or JSON: {error}") from error
    except InvalidArgument as error:
        raise _invalid(f"{file}: {error}") from error
    if not 1 <= len(recipes) + len(regions) <= MAX_ENTRIES:
        raise _invalid(f"{file} has {len(recipes) + len(regions)} entries; it needs 1 to {MAX_ENTRIES}: split it")
    return list(_first_only([*recipes, *_parents_first(regions)]))


def bring_in(client: Client, entry: Entry) -> Verdict:
    """Put one entry; what the registry refuses is a verdict, what it can't do now is raised."""
    try:
        if isinstance(entry.message, InvalidArgument):
            raise entry.message
        if isinstance(entry.message, pb.Region):
            client.regions.put(entry.message)
        else:
            client.recipes.put(entry.message)
    except TerroirError as error:
        if error.code.value in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"):
            raise
        return Verdict(entry.line, entry.name, error.reason, str(error))
    return Verdict(entry.line, entry.name)


def _entry(node: yaml.Node, kind: str, key: str, build: Any) -> Entry:
    line = node.start_mark.line + 1
    name = kind
    try:
        if isinstance(node, yaml.MappingNode):
            found = [value.value for label, value in node.value if label.value == key]
            name = resource(kind, str(found[0])[:80]) if found else kind
        return Entry(line, name, build(node))
    except InvalidArgument as error:
        return Entry(line, name, error)


def _recipe(node: yaml.Node) -> recipe_pb2.Recipe:
    fields = _fields(node, _RECIPE, "a recipe")
    return recipe_pb2.Recipe(
        name=resource("recipes", _text(fields, "id")),
        display_name=_text(fields, "display_name"),
        style=_style(fields) or recipe_pb2.StyleRecipe(),
    )


def _region(node: yaml.Node) -> pb.Region:
    fields = _fields(node, _REGION, "a region")
    return pb.Region(
        name=resource("regions", _text(fields, "code")),
        display_name=_text(fields, "display_name"),
        parent=_named(fields, "parent", "regions"),
        recipe=_style(fields),
        saved_recipe=_named(fields, "saved_recipe", "recipes"),
        seasons=[_season(season) for season in _items(fields.get("seasons"))],
    )


def _season(node: yaml.Node) -> pb.SeasonalRecipe:
    fields = _fields(node, _SEASON, "a season")
    return pb.SeasonalRecipe(
        id=_text(fields, "id"),
        from_date=_text(fields, "from_date"),
        to_date=_text(fields, "to_date"),
        campaign=_text(fields, "campaign"),
        recipe=_style(fields),
        saved_recipe=_named(fields, "saved_recipe", "recipes"),
    )


def _style(fields: dict[str, yaml.Node]) -> recipe_pb2.StyleRecipe | None:
    if not any(key in fields for key in _STYLE):
        return None
    adapters = [_scalar(node, "adapters") for node in _items(fields.get("adapters"))]
    return style_of(adapters, _text(fields, "prompt_prefix"), _text(fields, "negative_prompt"))


def _fields(node: yaml.Node | None, known: tuple[str, ...], what: str) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        raise _invalid(f"{what}{_at(node)} has to be fields: {', '.join(known)}")
    fields: dict[str, yaml.Node] = {}
    for label, value in node.value:
        key = str(label.value)
        if key not in known:
            raise _invalid(
                f"{what} has no field {key[:40]!r}{_at(label)}{did_you_mean(key, known)}; it has: {', '.join(known)}"
            )
        if key in fields:
            raise _invalid(f"{what} has the field {key!r} twice{_at(label)}; keep one")
        fields[key] = value
    return fields


def _items(node: yaml.Node | None) -> list[yaml.Node]:
    if node is None:
        return []
    if not isinstance(node, yaml.SequenceNode):
        raise _invalid(f"what stands{_at(node)} has to be a list")
    return list(node.value)


def _text(fields: dict[str, yaml.Node], key: str) -> str:
    return _scalar(fields[key], key) if key in fields else ""


def _named(fields: dict[str, yaml.Node], key: str, kind: str) -> str:
    value = _text(fields, key)
    return resource(kind, value) if value else ""


def _scalar(node: yaml.Node, key: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _invalid(f"{key}{_at(node)} has to be text")
    return "" if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def _parents_first(entries: list[Entry]) -> Iterator[Entry]:
    """Children wait for parents of the same file; a ring among them comes as it stands, for the registry to refuse."""
    waiting = entries
    while waiting:
        names = {same(entry.name) for entry in waiting}
        blocked = [same(_parent(entry)) in names for entry in waiting]
        if all(blocked):
            yield from waiting
            return
        yield from (entry for entry, later in zip(waiting, blocked, strict=True) if not later)
        waiting = [entry for entry, later in zip(waiting, blocked, strict=True) if later]


def _first_only(entries: list[Entry]) -> Iterator[Entry]:
    seen: dict[str, int] = {}
    for entry in entries:
        if isinstance(entry.message, InvalidArgument) or entry.name not in seen:
            seen.setdefault(entry.name, entry.line)
            yield entry
        else:
            yield Entry(entry.line, entry.name, _invalid(f"line {seen[entry.name]} has it already; keep one"))


def _parent(entry: Entry) -> str:
    return entry.message.parent if isinstance(entry.message, pb.Region) else ""


def _at(node: yaml.Node | None) -> str:
    return f" (line {node.start_mark.line + 1})" if node is not None else ""


def _invalid(message: str) -> InvalidArgument:
    return InvalidArgument(message, reason="REGION_FILE_INVALID")
