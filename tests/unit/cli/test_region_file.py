"""Files of regions: every entry has its line and its verdict, and texts stay as they were written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir._proto.registry.v1 import region_pb2 as pb
from terroir.cli.region_file import bring_in, read_entries
from terroir.cli.region_forest import forest
from terroir.common.errors import InvalidArgument, NotFound, Unavailable

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "regions.yaml"


class Registry:
    """Takes what the client would send; refuses a name or is down."""

    def __init__(self, refuses="", down=False):
        self.put_names = []
        self.regions = self.recipes = self
        self._refuses, self._down = refuses, down

    def put(self, message):
        if self._down:
            raise Unavailable("the registry stops")
        if message.name == self._refuses:
            raise NotFound("no such adapter", reason="ADAPTER_NOT_FOUND")
        self.put_names.append(message.name)


def entry(text):
    """The only entry of a file."""
    (found,) = read_entries(text, "file")
    return found


def test_the_example_is_read_recipes_first_and_parents_before_children():
    entries = read_entries(EXAMPLE.read_text(), "regions.yaml")
    assert not [found for found in entries if isinstance(found.message, InvalidArgument)]
    names = [found.name for found in entries]
    assert names[:2] == ["recipes/jiangnan-ink", "recipes/lantern-festival"]
    assert names.index("regions/CN") < names.index("regions/x-jiangnan") < names.index("regions/CN-ZJ")
    hangzhou = next(found.message for found in entries if found.name == "regions/330100")
    assert hangzhou.recipe.adapters[0].adapter == "adapters/ink@production"
    assert [(season.id, season.from_date, season.to_date) for season in hangzhou.seasons] == [
        ("osmanthus", "09-15", "10-31")
    ]


def test_json_is_read_too():
    text = json.dumps({"regions": [{"code": "NO", "parent": "x-sea"}, {"code": "x-sea", "adapters": []}]})
    first, second = read_entries(text, "regions.json")
    assert (first.name, second.name, second.message.parent) == ("regions/x-sea", "regions/NO", "regions/x-sea")
    assert first.message.HasField("recipe")
    assert not second.message.HasField("recipe")


def test_nothing_that_yaml_takes_for_a_number_a_date_or_a_truth_loses_its_spelling():
    text = "regions: [{code: NO, display_name: 0x1F, seasons: [{id: on, from_date: 01-20, to_date: 2026-02-17}]}]"
    region = entry(text).message
    assert (region.name, region.display_name) == ("regions/NO", "0x1F")
    season = region.seasons[0]
    assert (season.id, season.from_date, season.to_date) == ("on", "01-20", "2026-02-17")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("regions:\n- code: CN\n  parnet: x", 2, "did you mean parent"),
        ("regions:\n- code: CN\n  code: JP", 2, "twice"),
        ("regions:\n- {code: CN, adapters: ink}", 2, "a list"),
        ("regions:\n- {code: CN, adapters: [[ink]]}", 2, "has to be text"),
        ("regions:\n- {code: CN, adapters: [ink=much]}", 2, "jiangnan@production=0.8"),
        ("regions:\n- {code: CN, seasons: [{id: s, when: now}]}", 2, "when"),
        ("regions:\n- CN", 2, "has to be fields"),
        ("recipes:\n- {id: tea, saved_recipe: x}", 2, "saved_recipe"),
    ],
)
def test_an_entry_that_cannot_be_read_is_refused_with_its_line_and_the_others_go_on(text, line, words):
    found = entry(text)
    verdict = bring_in(Registry(), found)
    assert (verdict.line, bool(verdict.reason)) == (line, True)
    assert words in verdict.message


@pytest.mark.parametrize(
    "text",
    ["", "regions: [", "- CN", "regions: {CN: {}}", "region: []", "regions: []", "regions: []\nregions: []",
     "\t", "regions: !!python/object:os.system []", "regions: *none", "a: 1\n---\nb: 2", "\x00"],
)  # fmt: skip
def test_a_file_that_is_no_list_of_regions_is_refused_as_a_whole(text):
    with pytest.raises(InvalidArgument) as refused:
        for found in read_entries(text, "regions.yaml"):
            assert isinstance(found.message, InvalidArgument)
            raise found.message
    assert refused.value.reason == "REGION_FILE_INVALID"


def test_a_code_that_comes_twice_is_refused_the_second_time():
    verdicts = [bring_in(Registry(), found) for found in read_entries("regions: [{code: CN}, {code: CN}]", "f")]
    assert [verdict.reason for verdict in verdicts] == ["", "REGION_FILE_INVALID"]


def test_what_the_registry_refuses_is_a_verdict_and_what_it_cannot_do_now_is_an_error():
    text = "regions: [{code: CN}, {code: JP}]"
    registry = Registry(refuses="regions/CN")
    verdicts = [bring_in(registry, found) for found in read_entries(text, "f")]
    assert [(verdict.reason, verdict.to_dict()["verdict"]) for verdict in verdicts] == [
        ("ADAPTER_NOT_FOUND", "refused"), ("", "put"),
    ]  # fmt: skip
    assert registry.put_names == ["regions/JP"]
    with pytest.raises(Unavailable):
        bring_in(Registry(down=True), entry("regions: [{code: CN}]"))


def test_regions_that_name_each_other_are_left_to_the_registry():
    text = "regions: [{code: a, parent: b}, {code: b, parent: a}, {code: c, parent: c}, {code: d}]"
    assert [found.name for found in read_entries(text, "f")] == [f"regions/{code}" for code in "dabc"]


@given(st.text(alphabet="regionscode:[]{}-, \n'\"&*!|>#?1", max_size=80))
def test_any_text_is_entries_or_an_error_with_its_reason(text):
    try:
        read_entries(text, "f")
    except InvalidArgument as error:
        assert error.reason == "REGION_FILE_INVALID"


def test_the_forest_puts_regions_where_they_lie():
    codes = {"CN": "", "CN-ZJ": "x-jiangnan", "x-jiangnan": "cn", "330106": "", "JP": "", "CN-SC": "", "330100": ""}
    regions = [
        pb.Region(name=f"regions/{code}", parent=f"regions/{parent}" if parent else "")
        for code, parent in codes.items()
    ]

    def drawn(nodes):
        return {node.region.name.removeprefix("regions/"): drawn(node.children) for node in nodes}

    assert drawn(forest(regions)) == {
        "CN": {"CN-SC": {}, "x-jiangnan": {"CN-ZJ": {"330100": {"330106": {}}}}},
        "JP": {},
    }
