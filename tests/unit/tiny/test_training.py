"""The tiny base's training: rates, precision, where a run starts, and that an interrupted run ends as a whole one."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from terroir.tiny import BASE_DIR
from terroir.tiny.training import precision, unet
from terroir.tiny.training.schedule import learning_rate, save_atomically


def test_the_rate_rises_for_200_steps_stays_and_falls_to_a_fiftieth():
    assert learning_rate(1.0, 99, 0.02, 0.5) == pytest.approx(0.5)
    assert learning_rate(1.0, 2000, 0.4, 0.5) == 1.0
    assert learning_rate(1.0, 4000, 0.75, 0.5) == pytest.approx(0.51)
    assert learning_rate(1.0, 5000, 1.0, 0.5) == pytest.approx(0.02)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path):
    path = tmp_path / "unet.ckpt"
    save_atomically({"step": 200}, path)
    with pytest.raises(AttributeError):
        save_atomically({"step": lambda: 400}, path)
    assert torch.load(path, weights_only=True) == {"step": 200}


@pytest.mark.parametrize(("brain_seconds", "enabled"), [(10.0, False), (0.9, False), (0.5, True)])
def test_bfloat16_is_used_only_where_it_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, brain_seconds: float, enabled: bool
):
    measured = {torch.float32: 1.0, torch.bfloat16: brain_seconds}
    monkeypatch.setattr(precision, "_seconds", measured.__getitem__)
    with precision.probe_autocast():
        assert torch.is_autocast_enabled("cpu") is enabled


def test_the_probe_measures_both_precisions_on_this_machine():
    chosen = precision.probe_autocast()
    with chosen:
        result = torch.nn.Linear(4, 4)(torch.zeros(1, 4))
    assert result.dtype in (torch.float32, torch.bfloat16)


def test_a_run_starts_from_the_weights_and_the_autoencoder_of_a_finished_base(tmp_path: Path):
    from safetensors.torch import load_file

    denoiser, text_encoder = unet.first_models(BASE_DIR)
    stored = load_file(BASE_DIR / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, stored[name].float()) for name, value in denoiser.state_dict().items())
    stored = load_file(BASE_DIR / "text_encoder" / "model.safetensors")
    own = text_encoder.state_dict()
    assert stored and all(torch.equal(own[name], value) for name, value in stored.items())
    decoder = unet.autoencoder(tmp_path, BASE_DIR)
    stored = load_file(BASE_DIR / "vae" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(decoder.state_dict()["quant_conv.weight"], stored["quant_conv.weight"].float())


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_weights_of_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Everything random comes from seed and step, so only the checkpoint's contents can make a difference."""
    monkeypatch.setattr(unet, "_SIZES", dict.fromkeys(unet._SIZES, 20))
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run(whole, steps=4, port=29731)
    run(halves, steps=2, port=29732)
    run(halves, steps=4, port=29733)
    first, second = (torch.load(folder / "unet.ckpt", weights_only=True) for folder in (whole, halves))
    assert first["step"] == second["step"] == 4
    for key in ("unet", "text", "unet_average", "text_average"):
        assert all(torch.equal(value, second[key][name]) for name, value in first[key].items()), key
    start, _ = unet.first_models(BASE_DIR)
    assert not torch.equal(start.conv_in.weight, first["unet"]["conv_in.weight"])


def run(folder: Path, *, steps: int, port: int) -> None:
    """One process of a run without the falling rate, which would depend on the run's length."""
    folder.mkdir(exist_ok=True)
    threads = torch.get_num_threads()
    try:
        fixed = {"start": BASE_DIR, "batch": 4, "peak": 1e-4, "flat": 1.0, "often": ["fish"], "processes": 1}
        unet._train(0, Namespace(out=folder, steps=steps, port=port, **fixed))
    finally:
        dist.destroy_process_group()
        torch.set_num_threads(threads)


def test_training_captions_are_sometimes_empty_and_always_of_the_scene():
    from terroir.tiny.world.scene import Scene

    rng = np.random.default_rng(0)
    phrases = [unet.phrase(Scene("fish", "blue", "snow", "night"), rng) for _ in range(400)]
    empty = phrases.count("")
    assert 20 < empty < 70
    assert all("blue fish" in phrase for phrase in phrases if phrase)
