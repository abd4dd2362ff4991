"""The loss of a forward pass."""

from __future__ import annotations

from torch import Tensor, nn

from terroir.training.engine.data.batches import Batch


def loss_of(predicted: Tensor, batch: Batch) -> Tensor:
    """Mean over the batch of each sample's mean squared error, weighted by place and by sample.

    A mask weighs every latent pixel, and what it leaves out still counts in the mean: a picture of which half is masked
    teaches half as much as one that is whole.
    """
    errors = nn.functional.mse_loss(predicted.float(), batch.target, reduction="none")
    if batch.mask is not None:
        errors = errors * batch.mask
    errors = errors.mean(dim=(1, 2, 3))
    return (errors if batch.weights is None else errors * batch.weights).mean()
