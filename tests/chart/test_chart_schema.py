"""The schema of the values: closed everywhere, described everywhere, and as wide as the values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.chart.rendering import defaults, schema


def _objects(part: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(part, dict):
        if part.get("type") == "object":
            yield path, part
        for key, value in part.items():
            yield from _objects(value, f"{path}/{key}")
    elif isinstance(part, list):
        for number, value in enumerate(part):
            yield from _objects(value, f"{path}/{number}")


def test_the_schema_is_closed_at_every_level() -> None:
    found = list(_objects(schema()))
    assert len(found) > 50
    for path, part in found:
        # Maps (labels, annotations, keys) state what their values are.
        assert part.get("additionalProperties") is False or (
            isinstance(part.get("additionalProperties"), dict) and "propertyNames" in part
        ), path


def test_every_value_is_described() -> None:
    for path, part in _objects(schema()):
        for name, value in part.get("properties", {}).items():
            assert value.get("description"), f"{path}/{name} has no description"


def test_the_defaults_are_whole_and_each_is_asked_for() -> None:
    def compare(stated: dict[str, Any], part: dict[str, Any], path: str) -> None:
        properties = part.get("properties")
        if properties is None or "$ref" in part:
            return
        assert stated.keys() == properties.keys(), path
        assert set(part["required"]) == stated.keys(), path
        for name, value in stated.items():
            if isinstance(value, dict):
                compare(value, properties[name], f"{path}.{name}")

    compare(defaults(), schema(), "")
