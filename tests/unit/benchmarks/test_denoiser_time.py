"""What a loop spends in the denoiser is told apart from the rest of a step."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from benchmarks.denoiser_time import DenoiserTime


def recorded(forward, backward):
    return DenoiserTime(forward=forward, backward=backward)


def test_the_share_is_that_of_the_last_steps():
    assert recorded([9.0, 1.0, 1.0], [9.0, 2.0, 2.0]).share_outside([4.0, 4.0]) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("forward", "backward", "steps"), [([1.0], [], [2.0]), ([1.0], [1.0], [2.0, 2.0]), ([], [], [])]
)
def test_passes_that_do_not_fit_the_steps_are_refused(forward, backward, steps):
    with pytest.raises(ValueError, match="do not fit"):
        recorded(forward, backward).share_outside(steps)


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
    with DenoiserTime() as taken:
        timed = [gradients() for _ in range(2)]
    assert len(taken.forward) == len(taken.backward) == 2
    assert min(taken.forward + taken.backward) > 0
    assert all(torch.equal(mine, theirs) for run in timed for mine, theirs in zip(run, plain, strict=True))


def test_torch_and_diffusers_are_left_as_they_were_also_after_an_error():
    before = UNet2DConditionModel.forward, torch.Tensor.backward
    with pytest.raises(RuntimeError, match="stopped"), DenoiserTime():
        assert (UNet2DConditionModel.forward, torch.Tensor.backward) != before
        raise RuntimeError("stopped")
    assert (UNet2DConditionModel.forward, torch.Tensor.backward) == before
