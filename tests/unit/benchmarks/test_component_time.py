"""What a loop spends in each component is told apart from the rest of a step."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from benchmarks.training.component_time import ComponentTime


def recorded(forward, backward):
    return ComponentTime(forward=forward, backward=backward)


def test_the_share_is_that_of_the_last_steps():
    assert recorded([9.0, 1.0, 1.0], [9.0, 2.0, 2.0]).share_outside([4.0, 4.0]) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("forward", "backward", "steps"), [([1.0], [], [2.0]), ([1.0], [1.0], [2.0, 2.0]), ([], [], [])]
)
def test_passes_that_do_not_fit_the_steps_are_refused(forward, backward, steps):
    with pytest.raises(ValueError, match="do not fit"):
        recorded(forward, backward).share_outside(steps)


def test_the_bound_is_what_a_loop_without_encoders_would_gain_and_leaves_the_first_pass_out():
    taken = ComponentTime([9.0, 1.0, 1.0], [9.0, 3.0, 3.0], pictures=[9.0, 1.5, 1.5], texts=[9.0, 0.5, 0.5])
    assert taken.bound == pytest.approx(1.5)


def test_a_loop_that_caches_has_no_bound():
    with pytest.raises(ValueError, match="2 forward, 2 backward, 1 VAE and 2 text encoder passes"):
        _ = ComponentTime([1.0, 1.0], [1.0, 1.0], pictures=[1.0], texts=[1.0, 1.0]).bound


def test_each_pass_of_a_real_denoiser_is_timed_with_the_same_gradients():
    torch.manual_seed(0)
    denoiser = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), attention_head_dim=4,
    )  # fmt: skip
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([3]), torch.randn(1, 2, 8)

    def gradients():
        denoiser.zero_grad()
        denoiser(*inputs, return_dict=False)[0].square().mean().backward()
        return [weight.grad.clone() for weight in denoiser.parameters() if weight.grad is not None]

    plain = gradients()
    with ComponentTime() as taken:
        timed = [gradients() for _ in range(2)]
    assert len(taken.forward) == len(taken.backward) == 2
    assert min(taken.forward + taken.backward) > 0
    assert all(torch.equal(mine, theirs) for run in timed for mine, theirs in zip(run, plain, strict=True))


def test_torch_and_diffusers_are_left_as_they_were_also_after_an_error():
    before = UNet2DConditionModel.forward, torch.Tensor.backward
    with pytest.raises(RuntimeError, match="stopped"), ComponentTime():
        assert (UNet2DConditionModel.forward, torch.Tensor.backward) != before
        raise RuntimeError("stopped")
    assert (UNet2DConditionModel.forward, torch.Tensor.backward) == before
