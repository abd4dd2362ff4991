"""Strategies that draw any valid configuration, from the rules of the keys themselves."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from terroir.training.config import TrainConfig
from terroir.training.config.limits import IDENTIFIER, MODULE_ENDING
from terroir.training.config.optimisation_keys import BLOCKS
from terroir.training.config.profiles import PROFILES
from terroir.training.config.rules import Rule, rule_of

_LINE = st.characters(exclude_categories=["C", "Zl", "Zp"])
_PATTERNS = {IDENTIFIER: r"([a-z][a-z0-9-]{0,20})?", MODULE_ENDING: r"[A-Za-z_][A-Za-z0-9_]{0,9}(\.[A-Za-z0-9_]{1,5})?"}
PROFILE_NAMES = st.sampled_from(
    [(), *((name,) for name in PROFILES), ("gpu-12gb", "clean-set"), ("noisy-set", "cpu-smoke")]
)


def values_of(rule: Rule) -> st.SearchStrategy[Any]:
    """Every value that a rule allows."""
    drawn = _given(rule)
    return st.none() | drawn if rule.optional else drawn


def _given(rule: Rule) -> st.SearchStrategy[Any]:
    if rule.kind == "yes or no":
        return st.booleans()
    if rule.kind == "choice":
        return st.sampled_from(rule.choices)
    if rule.kind == "whole number":
        step, low = rule.multiple_of or 1, int(rule.low or 0)
        return st.integers(-(-low // step), int(rule.high or 0) // step).map(lambda n: n * step)
    if rule.kind == "number":
        return st.floats(rule.low, rule.high, exclude_min=rule.above, exclude_max=rule.below)
    if rule.kind == "text":
        if rule.pattern in _PATTERNS:
            return st.from_regex(_PATTERNS[rule.pattern], fullmatch=True)
        return st.text(_LINE, min_size=rule.min_length or 0, max_size=min(rule.max_length or 20, 20))
    assert rule.entries is not None
    if rule.kind == "mapping":
        return st.dictionaries(st.sampled_from(BLOCKS), values_of(rule.entries), max_size=3)
    lists = st.lists(values_of(rule.entries), min_size=rule.min_length or 0, max_size=3)
    return lists | st.sampled_from(rule.choices) if rule.choices else lists


@st.composite
def _buckets(draw: st.DrawFn) -> dict[str, Any]:
    """Sizes that go together; bounds that hold the resolution are rare among any."""
    low, side, high = (8 * n for n in sorted(draw(st.tuples(*[st.integers(2, 256)] * 3))))
    steps = 8 * draw(st.integers(1, min(32, side // 8)))
    if draw(st.booleans()):
        return {"enable_bucket": draw(st.booleans()), "resolution": side}
    sizes = {"resolution": side, "bucket_reso_steps": steps, "min_bucket_reso": low, "max_bucket_reso": high}
    return {"enable_bucket": draw(st.booleans()), **sizes}


@st.composite
def any_keys(draw: st.DrawFn, *, profiles: bool = True) -> dict[str, Any]:
    """Some keys with valid values that go together."""
    fields = {name: rule_of(field) for name, field in TrainConfig.model_fields.items() if name != "profile"}
    names = draw(st.lists(st.sampled_from(list(fields)), unique=True, max_size=12))
    keys = {name: draw(values_of(fields[name])) for name in names}
    if keys.get("epochs") is not None:
        keys.pop("max_train_steps", None)
    if keys.get("conv_rank") is None:
        keys.pop("conv_alpha", None)
    if keys.get("text_encoder_lr") is None:
        keys.pop("text_encoder_stop_step", None)
        keys.pop("text_encoder_lr_scheduler", None)
    keys = {key: value for key, value in keys.items() if "bucket" not in key} | draw(_buckets())
    if profiles and (chosen := draw(PROFILE_NAMES)):
        keys["profile"] = list(chosen)
    return keys
