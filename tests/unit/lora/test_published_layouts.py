"""Files as published: every key of every layout finds its layer in the base at full width."""

from __future__ import annotations

import json

import pytest

from terroir.lora.errors import LoraError
from terroir.lora.formats import parse, to_diffusers, to_kohya
from tests.unit.lora.published import LAYOUTS, family_of, file_of, key_table, layout

FORMATS = {
    "diffusers_sd15_processors": ("diffusers", 176, 0),
    "diffusers_sd15_script": ("diffusers", 128, 0),
    "kohya_sd15": ("kohya", 264, 0),
    "kohya_sd15_locon": ("kohya", 350, 0),
    "kohya_sdxl_diffusers": ("kohya", 986, 0),
    "kohya_sdxl_sgm": ("kohya", 986, 0),
    "lycoris_sd15_dora_out": ("kohya", 264, 0),
    "lycoris_sd15_locon_cp": ("kohya", 350, 0),
    "lycoris_sd15_loha": ("kohya", 350, 0),
    "lycoris_sd15_loha_cp": ("kohya", 350, 0),
    "lycoris_sd15_lokr": ("kohya", 350, 0),
    "lycoris_sd15_lokr_cp": ("kohya", 350, 0),
    "lycoris_sd15_lokr_full": ("kohya", 264, 0),
    "lycoris_sdxl_lokr": ("kohya", 986, 0),
    "peft_sd15": ("diffusers", 128, 0),
    "peft_sd15_dora": ("diffusers", 166, 0),
    "peft_sd15_folder": ("peft", 128, 0),
}
"""Layout → format, layers, and attention projections that it leaves alone. sd-scripts logs the same numbers when it
starts ("create LoRA for Text Encoder: 72 modules", "U-Net: 192 modules", 278 with convolutions, 722 for SDXL)."""
REFUSED = {"lycoris_sd15_dora_in"}
CONFIG = {"lora_adapter_metadata": json.dumps({"lora_alpha": 4})}
"""PEFT folders keep it in adapter_config.json."""


def read(name: str):
    metadata = CONFIG if name.endswith("_folder") else {}
    return parse(file_of(layout(name), metadata), key_table(family_of(name)))


def test_every_layout_is_expected_to_be_read_or_refused():
    assert set(LAYOUTS) == set(FORMATS) | REFUSED


@pytest.mark.parametrize("name", FORMATS)
def test_every_key_of_a_published_layout_is_matched(name):
    parsed = read(name)
    assert (parsed.ignored, parsed.unknown) == ((), ())
    assert (parsed.format, parsed.matched, parsed.missing) == FORMATS[name]
    assert parsed.adapter.has_magnitudes == ("dora" in name)
    assert parsed.adapter.is_lora != any(kind in name for kind in ("loha", "lokr"))


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_read_is_written_for_all_loaders_and_read_again(name):
    parsed = read(name)
    table = key_table(family_of(name))
    kohya = to_kohya(parsed.adapter, {}, sdxl=family_of(name) == "sdxl")
    assert parse(kohya, table).adapter.tensor_digest() == parsed.adapter.tensor_digest()
    if not parsed.adapter.is_lora:
        return
    diffusers = to_diffusers(parsed.adapter)
    again = parse(diffusers, table)
    assert set(again.adapter.modules) == set(parsed.adapter.modules)
    assert (again.ignored, again.unknown) == ((), ())


def test_both_spellings_of_sdxl_are_one_adapter():
    original, renamed = (read(f"kohya_sdxl_{name}").adapter for name in ("sgm", "diffusers"))
    assert original.tensor_digest() == renamed.tensor_digest()


def test_sdxl_is_written_as_sd_scripts_writes_it():
    written = to_kohya(read("kohya_sdxl_diffusers").adapter, {}, sdxl=True)
    header = json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")])
    assert {key: tuple(entry["shape"]) for key, entry in header.items() if key != "__metadata__"} == layout(
        "kohya_sdxl_sgm"
    )


@pytest.mark.parametrize("name", ["kohya_sd15", "kohya_sd15_locon"])
def test_sd15_is_written_as_sd_scripts_writes_it(name):
    written = to_kohya(read(name).adapter, {})
    header = json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")])
    assert {key: tuple(entry["shape"]) for key, entry in header.items() if key != "__metadata__"} == layout(name)


def test_magnitudes_an_input_are_refused_by_name():
    """LyCORIS with `wd_on_output=False` norms columns, which neither PEFT nor diffusers can express."""
    with pytest.raises(LoraError, match="input") as caught:
        read("lycoris_sd15_dora_in")
    assert caught.value.key


def test_an_adapter_for_sdxl_does_not_fit_sd15():
    with pytest.raises(LoraError) as caught:
        parse(file_of(layout("kohya_sdxl_diffusers")), key_table("sd15"))
    assert caught.value.reason == "ADAPTER_WRONG_SHAPE"


def test_the_second_text_encoder_is_unknown_to_a_base_with_one():
    shapes = layout("kohya_sd15") | {
        key: shape for key, shape in layout("kohya_sdxl_sgm").items() if key.startswith("lora_te2_")
    }
    parsed = parse(file_of(shapes), key_table("sd15"))
    assert parsed.matched == 264
    assert len(parsed.unknown) == 3 * 192
    assert all("second text encoder" in entry.reason for entry in parsed.unknown)
