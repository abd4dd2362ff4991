"""The fixtures of layers and layouts are what diffusers and PEFT build today."""

from __future__ import annotations

import pytest
import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict

from terroir.lora.key_table import key_table_of
from tests.contract.lora import full_width
from tests.unit.lora.published import key_table, layout

ATTENTION = ["to_k", "to_q", "to_v", "to_out.0"]


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_the_key_tables_are_those_of_diffusers_models(family):
    models = full_width.sd15() if family == "sd15" else full_width.sdxl()
    assert dict(key_table_of(*map(full_width.shapes, models))) == key_table(family)


def test_the_diffusers_and_peft_layouts_are_what_those_libraries_save():
    unet, _ = full_width.sd15()
    with torch.device("meta"):
        unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=ATTENTION))
    state = get_peft_model_state_dict(unet)
    saved = {f"unet.{key}": tuple(value.shape) for key, value in state.items()}
    script = {f"unet.{k}": tuple(v.shape) for k, v in convert_state_dict_to_diffusers(state).items()}
    assert (saved, script) == (layout("peft_sd15"), layout("diffusers_sd15_script"))


def test_the_dora_layout_is_what_peft_saves():
    unet, _ = full_width.sd15()
    targets = [*ATTENTION, "proj_in", "conv1"]
    with torch.device("meta"):
        unet.add_adapter(LoraConfig(r=4, lora_alpha=4, use_dora=True, target_modules=targets))
    saved = {f"unet.{key}": tuple(value.shape) for key, value in get_peft_model_state_dict(unet).items()}
    assert saved == layout("peft_sd15_dora")
