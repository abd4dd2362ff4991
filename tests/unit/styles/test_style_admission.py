"""What is refused before a registration begins, each by its own reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from styles_kit import ANA, BASE_DIGEST, REQUEST, Room

from terroir.common.errors import TerroirError
from terroir.common.principal import Principal, Role
from terroir.training.artifacts.pretrained import PublishedAdapter
from terroir.training.styles.admission import StyleRequest
from terroir.training.styles.ports import DatasetFacts

SOURCE = replace(REQUEST, dataset="", import_source="importSources/team", rights_statement="Ours.")


def no_rights(room: Room) -> None:
    room.datasets.facts["ink-pictures"] = replace(room.datasets.facts["ink-pictures"], rights_statement=" ")


def other_region(room: Room) -> None:
    room.datasets.facts["ink-pictures"] = replace(room.datasets.facts["ink-pictures"], region="CN-FJ")


def no_pictures(room: Room) -> None:
    room.datasets.facts["ink-pictures"] = replace(room.datasets.facts["ink-pictures"], pictures=0)


def adapter_there(room: Room) -> None:
    room.shelf.adapters["ink"] = ["CN-ZJ"]


def other_statement(room: Room) -> None:
    room.datasets.facts["ink"] = DatasetFacts("ink", "CN-ZJ", "Somebody else's.", 3)


def no_regions(room: Room) -> None:
    room.shelf.tree = []


def nothing(_room: Room) -> None:
    pass


REFUSED: list[tuple[str, StyleRequest, Callable[[Room], None], str, str]] = [
    ("a name with capitals", replace(REQUEST, style="Ink"), nothing, "INVALID_IDENTIFIER", "style_id 'Ink'"),
    ("a name with folders", replace(REQUEST, style="../ink"), nothing, "INVALID_IDENTIFIER", "style_id"),
    ("no name", replace(REQUEST, style=""), nothing, "INVALID_IDENTIFIER", "style_id"),
    ("no region", replace(REQUEST, region=""), nothing, "INVALID_NAME", "regions/{code}"),
    ("a bare code", replace(REQUEST, region="CN-ZJ"), nothing, "INVALID_NAME", "regions/{code}"),
    ("a region that is not there", replace(REQUEST, region="regions/CN-ZX"), nothing, "REGION_NOT_FOUND",
     r"did you mean CN-ZJ\?\).*terroir region put CN-ZX"),
    ("a region far from all", replace(REQUEST, region="regions/x-moon"), nothing, "REGION_NOT_FOUND",
     "there are CN, CN-FJ, CN-ZJ"),
    ("a region where there are none", REQUEST, no_regions, "REGION_NOT_FOUND",
     "there are none yet; put it there first"),
    ("no pictures named", replace(REQUEST, dataset=""), nothing, "PICTURES_MISSING", "name a dataset"),
    ("a path for a dataset", replace(REQUEST, dataset="datasets/../x"), nothing, "INVALID_NAME", "datasets/{dataset}"),
    ("a dataset that is not there", replace(REQUEST, dataset="datasets/none"), nothing, "DATASET_NOT_FOUND",
     "make it and import pictures first"),
    ("a dataset without rights", REQUEST, no_rights, "RIGHTS_NOT_ATTESTED", "has no rights statement"),
    ("a dataset of another region", REQUEST, other_region, "DATASET_DIFFERS",
     "lies in CN-FJ, the style shall lie in CN-ZJ"),
    ("an empty dataset", REQUEST, no_pictures, "DATASET_EMPTY", "terroir dataset import ink-pictures FOLDER"),
    ("rights for a dataset that has its own", replace(REQUEST, rights_statement="Ours."), nothing,
     "FIELD_OF_IMPORT_SOURCE", "rights_statement goes with an import source"),
    ("a source that is not configured", replace(SOURCE, import_source="importSources/no"), nothing,
     "IMPORT_SOURCE_NOT_FOUND", "not configured"),
    ("a bucket's address for a source", replace(SOURCE, import_source="s3://bucket/x"), nothing, "INVALID_NAME",
     "importSources/{source}"),
    ("a source without rights", replace(SOURCE, rights_statement=""), nothing, "RIGHTS_NOT_ATTESTED",
     "rights_statement"),
    ("a source's dataset with another statement", SOURCE, other_statement, "DATASET_DIFFERS",
     "another rights statement"),
    ("a trigger word of 65 characters", replace(SOURCE, trigger_word="x" * 65), nothing, "TEXT_TOO_LONG",
     "trigger_word"),
    ("no YAML", replace(REQUEST, config_yaml="{"), nothing, "CONFIG_NOT_YAML", ""),
    ("an unknown key", replace(REQUEST, config_yaml="lora_rnk: 4"), nothing, "CONFIG_KEY_UNKNOWN", "lora_rank"),
    ("rank 0", replace(REQUEST, config_yaml="lora_rank: 0"), nothing, "CONFIG_VALUE", "lora_rank"),
    ("a dataset in the configuration", replace(REQUEST, config_yaml="dataset: datasets/x"), nothing,
     "CONFIG_KEY_DECIDED", "leave the key out"),
    ("a folder in the configuration", replace(REQUEST, config_yaml="train_data_dir: pictures"), nothing,
     "CONFIG_KEY_DECIDED", "does not see files"),
    ("another adapter in the configuration", replace(REQUEST, config_yaml="adapter: tea"), nothing,
     "CONFIG_KEY_DECIDED", "the style's name ink"),
    ("no judgement", replace(REQUEST, config_yaml="publish_gate: 'off'"), nothing, "STYLE_UNJUDGED", "set it to warn"),
    ("an unknown base", replace(REQUEST, config_yaml="base_model: sdxl"), nothing, "BASE_NOT_FOUND", "bases/sdxl"),
    ("an adapter to go on from that is not there", replace(REQUEST, config_yaml="pretrained_lora: tea@production"),
     nothing, "PRETRAINED_NOT_FOUND", "adapters/tea@production cannot be gone on from"),
    ("a style that exists", REQUEST, adapter_there, "STYLE_EXISTS", "new_version"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "prepare", "reason", "told"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_is_refused_and_leaves_nothing(
    request_: StyleRequest, prepare: Callable[[Room], None], reason: str, told: str
) -> None:
    room = Room()
    room.sources.folders["team"] = None  # type: ignore[assignment]  # never opened here
    prepare(room)
    import re

    with pytest.raises(TerroirError) as refused:
        room.begin(request_)
    assert refused.value.reason == reason
    assert re.search(told, str(refused.value)), str(refused.value)
    assert list(room.registrations.logged()) == []


def test_a_request_id_is_bounded() -> None:
    with pytest.raises(TerroirError) as refused:
        Room().begin(request_id="x" * 129)
    assert refused.value.reason == "TEXT_TOO_LONG"


def test_a_region_is_spelled_as_the_tree_spells_it_and_a_dataset_in_any_case() -> None:
    room = Room()
    room.datasets.facts["ink-pictures"] = replace(room.datasets.facts["ink-pictures"], region="cn-zj")
    assert room.begin(replace(REQUEST, region="regions/cn-ZJ")).wish.region == "CN-ZJ"


def config_of(text: str, room: Room | None = None) -> dict[str, Any]:
    wish = (room or Room()).admission.checked(replace(REQUEST, config_yaml=text), ANA)
    return dict(yaml.safe_load(wish.config_yaml))


def test_a_registered_style_is_judged_unless_it_says_warn() -> None:
    assert config_of("lora_rank: 4")["publish_gate"] == "enforce"
    assert config_of("publish_gate: warn")["publish_gate"] == "warn"
    assert config_of("publish_gate: enforce")["publish_gate"] == "enforce"


def test_the_configuration_is_kept_with_exact_names() -> None:
    """So that an alias that moves between a crash and its repeat makes no other job."""
    room = Room()
    found = PublishedAdapter("adapters/tea/versions/7", "terroir-tiny", BASE_DIGEST, "f" * 64, 16)
    room.shelf.adapter_version = lambda name: found  # type: ignore[method-assign]  # an adapter to go on from
    kept = config_of("pretrained_lora: tea@production", room)
    assert (kept["adapter"], kept["base_model"]) == ("ink", "terroir-tiny")
    assert kept["pretrained_lora"] == "adapters/tea/versions/7"


def test_a_further_version_is_made_of_a_style_that_exists_by_who_may_change_it_there() -> None:
    room = Room()
    adapter_there(room)
    further = replace(REQUEST, new_version=True)
    bo = Principal("cert:bo", frozenset({Role.STYLIST}), frozenset({"CN-ZJ"}))
    assert room.admission.checked(further, bo).style == "ink"
    room.shelf.adapters["ink"].append("CN-FJ")
    with pytest.raises(TerroirError) as refused:
        room.admission.checked(further, bo)
    assert refused.value.reason == "REGION_OUT_OF_SCOPE"


def test_pictures_may_come_later_where_nothing_begins_yet() -> None:
    room = Room()
    admission = room.admission
    assert admission.checked(replace(REQUEST, dataset=""), ANA, pictures_later=True).dataset == "ink"
    later = replace(REQUEST, dataset="datasets/later")
    assert admission.checked(later, ANA, pictures_later=True).dataset == "later"
    no_rights(room)
    with pytest.raises(TerroirError) as refused:
        admission.checked(REQUEST, ANA, pictures_later=True)
    assert refused.value.reason == "RIGHTS_NOT_ATTESTED", "what is there is checked all the same"


def test_who_asked_is_kept_and_told_to_the_registry() -> None:
    room = Room()
    registration = room.begin()
    assert registration.wish.creator == ANA.name
    room.finish(registration)
    ((_, _, reason),) = room.shelf.moves.values()
    assert reason == f"registered by {ANA.name}: {registration.name}"
    assert room.jobs.get(room.seen(registration).job).creator == ANA.name
