"""A run's file: what is wrong with it is said by key, value and limit, and what is right means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from any_config import any_keys, values_of
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from terroir.training.config import TrainConfig
from terroir.training.config.docs import render
from terroir.training.config.layers import merged
from terroir.training.config.model import SECTIONS
from terroir.training.config.parser import config_from_mapping, dump_config, parse_config
from terroir.training.config.rules import Rule, rule_of
from terroir.training.config.synonyms import SYNONYMS
from terroir.training.errors import ConfigInvalid

RULES = {name: rule_of(field) for name, field in TrainConfig.model_fields.items()}


def refused(text: str) -> ConfigInvalid:
    with pytest.raises(ConfigInvalid) as error:
        parse_config(text)
    return error.value


@pytest.mark.parametrize(
    ("text", "reason", "field", "words"),
    [
        ("lora_rnk: 4", "CONFIG_KEY_UNKNOWN", "lora_rnk", "'lora_rank'"),
        ("zzz: 4", "CONFIG_KEY_UNKNOWN", "zzz", "the nearest is"),
        ("NETWORK_DIMS: 4", "CONFIG_KEY_UNKNOWN", "NETWORK_DIMS", "'network_dim'"),
        ("epochs: 2\nmax_train_steps: 3", "CONFIG_VALUE", None, "keep one"),
        ("min_bucket_reso: 256", "CONFIG_VALUE", None, "exceeds max_bucket_reso"),
        ("conv_alpha: 4", "CONFIG_VALUE", None, "without conv_rank"),
        ("enable_bucket: true\nmin_bucket_reso: 256", "CONFIG_VALUE", None, "exceeds resolution 64"),
        ("enable_bucket: true\nmax_bucket_reso: 48", "CONFIG_VALUE", None, "is below resolution 64"),
        ("text_encoder_stop_step: 4", "CONFIG_VALUE", None, "changes nothing without text_encoder_lr"),
        ("seed: 1\nseed: 2", "CONFIG_KEY_TWICE", "seed", "line 2"),
        ("block_lr_weights: {mid_block: 1, mid_block: 2}", "CONFIG_KEY_TWICE", "mid_block", "twice"),
        ("lora_rank: 4\nnetwork_dim: 8", "CONFIG_KEY_TWICE", "lora_rank", "keep one"),
        ("a: [", "CONFIG_NOT_YAML", None, "no YAML"),
        ("- 1", "CONFIG_NOT_YAML", None, "key: value"),
        ("seed: &a 1\nlora_rank: *a", "CONFIG_NOT_YAML", None, "alias"),
        ("seed: !!python/object/apply:os.getcwd []", "CONFIG_NOT_YAML", None, "no YAML"),
        ("#" * 300_000, "CONFIG_TOO_LARGE", None, "262144"),
    ],
)
def test_a_wrong_configuration_names_the_key_and_the_next_step(
    text: str, reason: str, field: str | None, words: str
) -> None:
    error = refused(text)
    assert (error.reason, error.field) == (reason, field)
    assert words in str(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora_rank: 0", "lora_rank 0 is not allowed: 1 to 256"),
        ("lora_rank: 512", "lora_rank 512 is not allowed: 1 to 256"),
        ("lora_rank: 99999999999999999999", "lora_rank 99999999999999999999 is not allowed: 1 to 256"),
        ("lora_rank: four", "lora_rank 'four': write a whole number, 1 to 256"),
        ("lora_rank: 4.5", "lora_rank 4.5: write a whole number, 1 to 256"),
        ("lora_rank:", "lora_rank has no value: write one or leave the key out"),
        ("max_train_steps: 2000000", "max_train_steps 2000000 is not allowed: 1 to 1,000,000"),
        ("resolution: 65", "resolution 65 is not allowed: 16 to 2,048, multiple of 8"),
        ("learning_rate: .nan", "learning_rate nan is not finite: above 0, at most 1"),
        ("learning_rate: fast", "learning_rate 'fast': write a number, above 0, at most 1"),
        ("use_dora: maybe", "use_dora 'maybe': write true or false"),
        (
            "lr_scheduler: cosin",
            "lr_scheduler 'cosin': write one of constant, linear, cosine, cosine_with_restarts; "
            "the nearest is 'cosine'",
        ),
        (
            "text_encoder_lr: 1e-5\ntext_encoder_lr_scheduler: liner",
            "text_encoder_lr_scheduler 'liner': write one of constant, linear, cosine, cosine_with_restarts; "
            "the nearest is 'linear'",
        ),
        (
            "target_modules: atention",
            "target_modules 'atention': write one of attention, attention-ff, all-linear-conv, or a list of names; "
            "the nearest is 'attention'",
        ),
        (
            'target_modules: [to_q, "a b"]',
            "target_modules[1] 'a b' is not allowed: the end of a module's name, such as to_q or ff.net.2",
        ),
        ("sample_prompts: tea", "sample_prompts 'tea': write a list, [a, b], at most 16 entries, each not empty, "
         "at most 500 characters"),
        ('sample_prompts: [tea, ""]', "sample_prompts[1] '' is not allowed: not empty, at most 500 characters"),
        ("block_lr_weights: 3",
         "block_lr_weights 3: write a mapping, {name: value}, at most 64 entries, each 0 to 100"),
        ("block_lr_weights: {mid_block: much}", "block_lr_weights.mid_block 'much': write a number, 0 to 100"),
        ("block_lr_weights: {mid_block: 500}", "block_lr_weights.mid_block 500 is not allowed: 0 to 100"),
        (
            "block_lr_weights: {dwn_blocks.1: 1}",
            "block_lr_weights: 'dwn_blocks.1' is no block of a denoiser; the nearest is 'down_blocks.1' of "
            "down_blocks, mid_block, up_blocks, conv_in, time_embedding, add_embedding, conv_out",
        ),
        ('trigger_word: "a\\nb"', "trigger_word 'a\\nb' is not allowed: one line without control characters"),
        (
            "trigger_word: 2024",
            "trigger_word 2024: write a text; one that looks like a number, a date, true or false goes in quotes, "
            "at most 64 characters",
        ),
        ("adapter: ../x", "adapter '../x' is not allowed: at most 63 of a-z, 0-9 and '-', a letter first"),
        (
            "profile: gpu-12bg",
            "profile: 'gpu-12bg' is unknown; the nearest is 'gpu-12gb', all are cpu-smoke, gpu-12gb, gpu-24gb, "
            "gpu-80gb, few-pictures, clean-set, noisy-set",
        ),
        ("profile: [gpu-12gb, cpu-smoke]", "profile: gpu-12gb and cpu-smoke are both by hardware; keep one"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_answered_with_what_is_allowed(text: str, message: str) -> None:
    error = refused(text)
    assert error.reason == "CONFIG_VALUE"
    assert str(error) == f"{message} (docs/training-config.md)"


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_a_key_is_given_the_error_names_it(data: st.DataObject) -> None:
    """Values of one key's type under another key: right by chance, or an error that begins with the key."""
    key, other = (data.draw(st.sampled_from(list(RULES))) for _ in range(2))
    value = data.draw(values_of(RULES[other]))
    try:
        config_from_mapping({key: value})
    except ConfigInvalid as error:
        assert error.field in (key, None)
        assert key in str(error)
        assert "pydantic" not in str(error)


@settings(deadline=None)  # the first YAML of a process is slow on a busy machine
@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_a_typed_error(text: str) -> None:
    try:
        parse_config(text)
    except ConfigInvalid as error:
        assert error.reason.startswith("CONFIG_")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("mixed_precision: no", "mixed_precision", "no"),
        ("publish_gate: off", "publish_gate", "off"),
        ("learning_rate: 1e-4", "learning_rate", 1e-4),
        ("use_dora: yes", "use_dora", True),
        ("trigger_word: on", "trigger_word", "on"),
        ("target_modules: [attention]", "target_modules", "attention"),
    ],
)
def test_words_that_yaml_takes_for_something_else_mean_what_they_say(text: str, key: str, value: Any) -> None:
    """In YAML 1.1 `no` and `off` are booleans, and `1e-4` is text: `publish_gate: off` was an error."""
    assert getattr(parse_config(text).config, key) == value


@pytest.mark.parametrize(("spelling", "key"), SYNONYMS.items())
def test_every_synonym_sets_its_key(spelling: str, key: str) -> None:
    field = TrainConfig.model_fields[key]
    usual = field.get_default(call_default_factory=True, validated_data={})
    value = next(value for value in (_another(RULES[key]), True) if value != usual)
    assert getattr(config_from_mapping({spelling: value}).config, key) == value


def _another(rule: Rule) -> Any:
    """A valid value that is no default."""
    if rule.kind == "choice":
        return rule.choices[-1]
    if rule.kind == "number":
        return 0.3 if not rule.low else rule.low
    return {"yes or no": True, "whole number": 7, "text": "other"}[rule.kind]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(any_keys())
@example({"profile": ["gpu-12gb", "clean-set"], "max_train_steps": 7})
@example({"profile": "few-pictures", "min_snr_gamma": None})
def test_a_resolved_configuration_reads_back_equal(keys: dict[str, Any]) -> None:
    config = config_from_mapping(keys).config
    again = parse_config(dump_config(config))
    assert again.config == config
    assert dump_config(again.config) == dump_config(config)
    assert set(yaml.safe_load(dump_config(config))) == set(TrainConfig.model_fields)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(any_keys(), any_keys())
def test_upper_layers_overrule_lower_ones(lower: dict[str, Any], upper: dict[str, Any]) -> None:
    result = merged([lower, upper])
    assert upper.items() <= result.items()
    assert merged([result, upper]) == result == merged([{}, lower, upper])
    assert all(result[key] == lower[key] for key in result if key not in upper)
    assert not {"epochs", "max_train_steps"} <= {key for key, value in result.items() if value is not None}


def test_a_flag_of_length_takes_the_place_of_the_file_s() -> None:
    config = parse_config("epochs: 3\ntext_encoder_lr: 1e-5\ntext_encoder_stop_step: 9", {"max_train_steps": 5}).config
    assert (config.epochs, config.max_train_steps) == (None, 5)
    unset = parse_config("text_encoder_lr: 1e-5\ntext_encoder_stop_step: 9", {"text_encoder_lr": None}).config
    assert (unset.text_encoder_lr, unset.text_encoder_stop_step) == (None, None)


@pytest.mark.parametrize(
    ("resolution", "sizes"),
    [(16, (8, 16, 32)), (64, (16, 32, 128)), (512, (64, 256, 1024)), (1024, (64, 512, 2048)), (2048, (64, 1024, 4096))],
)
def test_bucket_sizes_follow_from_the_resolution(resolution: int, sizes: tuple[int, int, int]) -> None:
    config = config_from_mapping({"resolution": resolution, "enable_bucket": True}).config
    assert (config.bucket_reso_steps, config.min_bucket_reso, config.max_bucket_reso) == sizes


def test_steps_follow_from_epochs_pictures_and_batch() -> None:
    assert TrainConfig(epochs=3, batch_size=2, gradient_accumulation_steps=2).total_steps(10) == 8
    assert TrainConfig(max_train_steps=7).total_steps(10) == 7
    assert TrainConfig().total_steps(10) == 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_train_steps: 5\nlr_warmup_steps: 5", "never reached"),
        ("max_train_steps: 5\ntext_encoder_lr: 1e-5\ntext_encoder_stop_step: 5", "trained to the end"),
        ("max_train_steps: 5\nsample_prompts: [tea]\nsample_steps: 6", "no sample is drawn"),
        ("max_train_steps: 5\npublish_gate: enforce", "leaves one checkpoint in 5 steps"),
        ("lora_rank: 4\nlora_alpha: 9", "twice"),
        ("learning_rate: 0.1", "high"),
        ("text_encoder_lr: 1e-3", "text encoders spoil first"),
        ("optimizer: sgd\nloraplus_lr_ratio: 16", "made for Adam"),
        ("dataset: datasets/a\ntrain_data_dir: b", "both set"),
        ("reg_dataset: datasets/a\nreg_data_dir: b", "reg_dataset and reg_data_dir are both set"),
        ("use_dora: true\nbase_quantization: nf4", "rounded weights"),
        ("enable_bucket: true\nmin_bucket_reso: 32\nbucket_reso_steps: 24", "is no multiple of bucket_reso_steps 24"),
        ("base_model: sdxl\nresolution: 512", "SDXL draws at 1024"),
        ("base_model: sd15", "SD 1.5 draws at 512"),
        ("caption_dropout: 1", "drops every caption"),
        ("gpus: 0\nmixed_precision: fp16", "slowly"),
        ("gpus: 0\nbase_quantization: int8", "memory of a GPU"),
        ("min_bucket_reso: 128", "min_bucket_reso 128 changes nothing without enable_bucket: true"),
        ("bucket_no_upscale: true", "changes nothing without enable_bucket: true"),
        ("augment_erase_area: 0.2", "changes nothing without augment_erase above 0"),
        ("keep_tokens: 3", "changes nothing without shuffle_caption: true"),
        ("reg_share: 0.3", "changes nothing without reg_dataset or reg_data_dir"),
        ("prior_loss_weight: 0.3", "changes nothing without reg_dataset or reg_data_dir"),
        ("unmasked_weight: 0.3", "changes nothing without masked_loss: true"),
        ("lr_num_cycles: 3", "changes nothing without lr_scheduler: cosine_with_restarts"),
        ("sample_steps: 3", "changes nothing without sample_prompts"),
        ("judge_seeds: 8", "changes nothing without publish_gate: enforce or warn"),
        ("max_memorisation: 0.1", "changes nothing without publish_gate: enforce or warn"),
    ],
)
def test_what_is_probably_not_meant_is_warned_of(text: str, words: str) -> None:
    warnings = parse_config(text).warnings
    assert [warning for warning in warnings if words in warning], warnings


@pytest.mark.parametrize(
    "text", ["lora_rank: 4", "{}", "profile: clean-set\nresolution: 512\nbase_model: sd15", "epochs: 3\nseed: 9"]
)
def test_what_is_usual_is_not_warned_of_nor_when_it_was_written_out(text: str) -> None:
    parsed = parse_config(text)
    assert not parsed.warnings
    assert not parse_config(dump_config(parsed.config)).warnings


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "examples").glob("**/*.yaml")), ids=str)
def test_the_examples_are_valid_and_beyond_doubt(path: Path) -> None:
    if path.name in ("style.yaml", "regions.yaml"):
        return
    parsed = parse_config(path.read_text(encoding="utf-8"))
    assert parsed.config.lora_rank == yaml.safe_load(path.read_text(encoding="utf-8"))["lora_rank"]
    assert not parsed.warnings


def test_every_key_stands_in_one_section_and_explains_itself() -> None:
    keys = [key for _, section in SECTIONS for key in section.model_fields]
    assert sorted([*keys, "profile"]) == sorted(TrainConfig.model_fields)
    for name, field in TrainConfig.model_fields.items():
        assert field.description and field.description.endswith("."), name


def test_the_reference_shows_defaults_kinds_and_limits_in_words() -> None:
    page = render()
    for row in (
        "| `max_train_steps` |  | whole number, 1 to 1,000,000 |",
        "| `text_encoder_lr_scheduler` |  | `constant`, `linear`, `cosine`, `cosine_with_restarts` |",
        "| `sample_prompts` |  | list, at most 16 entries, each not empty, at most 500 characters |",
        "| `block_lr_weights` |  | mapping, at most 64 entries, each 0 to 100 |",
        "| `lora_dropout` | `0.0` | number, at least 0, below 1 |",
        "| `use_dora` | `false` | `true`, `false` |",
    ):
        assert row in page
    assert "Pydantic" not in page


def test_the_reference_of_keys_is_fresh() -> None:
    document = Path(__file__).parents[3] / "docs" / "training-config.md"
    assert document.read_text(encoding="utf-8") == render(), "run: make docs"
