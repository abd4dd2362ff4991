from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from training_kit import png

from terroir.common.base_digest import base_digest, component_digests
from terroir.common.clock import FixedClock
from terroir.common.errors import InvalidArgument
from terroir.lora.base_folder import read_base_folder
from terroir.lora.formats import parse
from terroir.store.obstore_driver import MemoryStore
from terroir.training.attempt.files import AttemptLog, LogReader
from terroir.training.config import TrainConfig
from terroir.training.config.parser import parse_config
from terroir.training.errors import BaseUnreadable, CheckpointMismatch, ConfigInvalid
from terroir.training.local.run import run_locally

CONFIG = "train_data_dir: pictures\noutput_dir: out\nadapter: ink\nresolution: 32\nlora_rank: 2\nmax_train_steps: 2\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png(1))
    (tmp_path / "pictures" / "a.txt").write_text("a red house")
    path = tmp_path / "style.yaml"
    path.write_text(CONFIG)
    return path


def test_a_run_without_a_server_leaves_both_files_curves_and_a_log(config: Path, base_dir: Path) -> None:
    seen = []
    result = run_locally(config, on_progress=seen.append, base_sources={"terroir-tiny": base_dir}, threads=1)
    kohya, diffusers = result.files
    assert kohya == config.parent / "out" / "ink.safetensors" and result.steps == 2 and seen[-1].step == 2
    layers = read_base_folder(base_dir).layers
    parsed = [parse(path.read_bytes(), layers) for path in (kohya, diffusers)]
    assert parsed[0].adapter.rank == 2 and parsed[0].matched == parsed[1].matched > 0 and not parsed[0].ignored
    assert list(config.parent.glob("out/state/run/tensorboard/events.out.tfevents*"))
    assert "saved checkpoint of step 2" in (config.parent / "out" / "train.log").read_text()
    again = run_locally(config, base_sources={"terroir-tiny": base_dir}, threads=1)
    assert "resumed at step 2 of 2" in (config.parent / "out" / "train.log").read_text()
    assert again.loss == result.loss
    assert len(list(config.parent.glob("out/state/run/tensorboard/*"))) == 2, "curves of the first start are kept"


def test_the_whole_configuration_is_left_beside_the_result_and_runs_the_same_again(
    config: Path, base_dir: Path, tmp_path: Path
) -> None:
    sources = {"terroir-tiny": base_dir}
    first = run_locally(config, over={"lora_rank": 3}, base_sources=sources, threads=1)
    told = config.parent / "out" / "config.yaml"
    kept = parse_config(told.read_text()).config
    assert (kept.lora_rank, kept.train_data_dir) == (3, str(tmp_path / "pictures"))
    assert set(TrainConfig.model_fields) <= set(yaml.safe_load(told.read_text()))
    again = run_locally(told, over={"output_dir": str(tmp_path / "again")}, base_sources=sources, threads=1)
    assert [file.read_bytes() for file in again.files] == [file.read_bytes() for file in first.files]


def test_a_folder_with_another_run_is_refused_with_every_difference_until_started_over(
    config: Path, base_dir: Path
) -> None:
    sources = {"terroir-tiny": base_dir}
    run_locally(config, base_sources=sources, threads=1)
    with pytest.raises(CheckpointMismatch, match=r"lora_rank 2 -> 4.*--start-over") as refused:
        run_locally(config, over={"lora_rank": 4, "seed": 9}, base_sources=sources, threads=1)
    assert refused.value.metadata == {"lora_rank": "2 -> 4", "seed": "0 -> 9"}
    assert parse_config((config.parent / "out" / "config.yaml").read_text()).config.lora_rank == 2
    result = run_locally(config, over={"lora_rank": 4}, start_over=True, base_sources=sources, threads=1)
    assert parse((result.files[0]).read_bytes(), read_base_folder(base_dir).layers).adapter.rank == 4


def test_what_is_missing_is_named(config: Path, base_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid) as missing:
        run_locally(tmp_path / "no.yaml")
    assert missing.value.reason == "CONFIG_MISSING"
    config.write_text("lora_rank: 2\n")
    with pytest.raises(ConfigInvalid, match="train_data_dir"):
        run_locally(config)
    config.write_text("train_data_dir: nowhere\n")
    with pytest.raises(InvalidArgument, match="nowhere"):
        run_locally(config, base_sources={"terroir-tiny": base_dir})
    config.write_text("train_data_dir: pictures\nbase_model: unknown\n")
    with pytest.raises(BaseUnreadable, match="unknown"):
        run_locally(config, base_sources={"terroir-tiny": base_dir})


def test_trainer_and_registry_give_a_base_the_same_digest(base_dir: Path) -> None:
    assert base_digest(component_digests(base_dir)) == read_base_folder(base_dir).digest


def test_log_lines_of_two_writers_are_read_in_the_order_of_storing() -> None:
    store, clock = MemoryStore(), FixedClock()
    first, second, reader = (AttemptLog(store, "p", clock), AttemptLog(store, "p", clock), LogReader(store, "p"))
    first.write("one\ntwo")
    first.flush()
    second.write("three")
    second.flush()
    assert [[line.split(" ", 1)[1] for line in lines] for lines in reader.new_pieces()] == [["one", "two"], ["three"]]
    clock.advance(2)
    first.write("four")
    assert [lines[0].endswith("four") for lines in reader.new_pieces()] == [True]
