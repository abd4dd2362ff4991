"""What people type is understood, or refused with an example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.cli.generate import parse_size
from terroir.cli.session import resource
from terroir.cli.styles import parse_adapter
from terroir.cli.up import stated_ports
from terroir.client.pictures import adapter_weights
from terroir.common.errors import InvalidArgument


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from("xX"))
def test_a_size_is_width_times_height(width, height, times):
    assert parse_size(f"{width}{times}{height}") == (width, height)


@pytest.mark.parametrize("text", ["", "64", "64x", "x64", "64x64x64", "-1x64", "6.4x64", "big", "²x64"])
def test_no_size(text):
    with pytest.raises(InvalidArgument, match="128x72") as refused:
        parse_size(text)
    assert refused.value.reason == "BAD_SIZE"


@given(st.floats(-2, 2))
def test_an_adapter_has_a_name_and_a_weight(weight):
    assert parse_adapter(f"jiangnan@production={weight!r}") == ("adapters/jiangnan@production", weight)


def test_a_missing_weight_is_one():
    assert parse_adapter("jiangnan") == ("adapters/jiangnan", 1.0)
    assert parse_adapter("adapters/jiangnan/versions/3=0") == ("adapters/jiangnan/versions/3", 0.0)


@pytest.mark.parametrize("text", ["jiangnan=much", "jiangnan=", "jiangnan=0,8", "a=b=1", "jiangnan=nan"])
def test_no_weight(text):
    with pytest.raises(InvalidArgument, match=r"jiangnan@production=0\.8") as refused:
        parse_adapter(text)
    assert refused.value.reason == "BAD_WEIGHT"


def test_short_names_become_resource_names():
    assert resource("datasets", "ink") == resource("datasets", "datasets/ink") == "datasets/ink"
    weights = {w.adapter: w.weight for w in adapter_weights({"ink@production": 0.5, "adapters/hotpot": 1})}
    assert weights == {"adapters/ink@production": 0.5, "adapters/hotpot": 1.0}


def test_ports_are_the_defaults_unless_the_environment_states_others(monkeypatch):
    monkeypatch.setenv("TERROIR_REGISTRY_PORT", "7999")
    assert stated_ports() == {"dataset": 7101, "training": 7102, "registry": 7999, "inference": 7104}


@pytest.mark.parametrize("stated", ["", "many", "65536", "-1"])
def test_no_port(monkeypatch, stated):
    monkeypatch.setenv("TERROIR_REGISTRY_PORT", stated)
    with pytest.raises(InvalidArgument, match="TERROIR_REGISTRY_PORT") as refused:
        stated_ports()
    assert refused.value.reason == "INVALID_SETTING"
