"""Linear and convolution layers that may wear other weights than their own for one call.

A layer becomes adaptable by a change of its class alone: names, parameters and state dict stay what diffusers made, and
its weight is only ever read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own documentation calls it so
from torch import Tensor, nn


class Worn(Protocol):
    """What a layer computes instead of `W0 · x + b`."""

    def linear(self, layer: AdaptedLinear, x: Tensor) -> Tensor:
        """Answer of a linear layer to `[rows, …, in]`."""
        ...

    def convolution(self, layer: AdaptedConv2d, x: Tensor) -> Tensor:
        """Answer of a convolution to `[rows, in, height, width]`."""
        ...


class Hanger:
    """Where a layer's adapters hang; changing it costs nothing, unlike an attribute of a module."""

    __slots__ = ("worn",)

    def __init__(self) -> None:
        self.worn: Worn | None = None


class AdaptedLinear(nn.Linear):
    """A linear layer with a hanger."""

    hanger: Hanger

    def forward(self, input: Tensor) -> Tensor:  # torch's name
        """Map `[rows, …, in]` to `[rows, …, out]`."""
        worn = self.hanger.worn
        return F.linear(input, self.weight, self.bias) if worn is None else worn.linear(self, input)


class AdaptedConv2d(nn.Conv2d):
    """A convolution with a hanger."""

    hanger: Hanger

    def forward(self, input: Tensor) -> Tensor:  # torch's name
        """Map `[rows, in, height, width]` to `[rows, out, …]`."""
        worn = self.hanger.worn
        if worn is None:
            return self._conv_forward(input, self.weight, self.bias)
        return worn.convolution(self, input)

    def with_weight(self, input: Tensor, weight: Tensor) -> Tensor:  # torch's name
        """The same convolution by another weight of the same shape."""
        return self._conv_forward(input, weight, self.bias)


AdaptedLayer = AdaptedLinear | AdaptedConv2d


def adapt(layers: Mapping[str, nn.Module]) -> dict[str, AdaptedLayer]:
    """Give layers their hangers, in place; twice is once. TypeError for what is no nn.Linear and no nn.Conv2d."""
    return {name: _adapted(name, layer) for name, layer in layers.items()}


def _adapted(name: str, layer: nn.Module) -> AdaptedLayer:
    if isinstance(layer, AdaptedLinear | AdaptedConv2d):
        return layer
    if type(layer) is nn.Linear:
        layer.__class__ = AdaptedLinear
    elif type(layer) is nn.Conv2d:
        layer.__class__ = AdaptedConv2d
    else:
        raise TypeError(f"{name} is a {type(layer).__name__}; only linear layers and convolutions can be adapted")
    assert isinstance(layer, AdaptedLinear | AdaptedConv2d)
    layer.hanger = Hanger()
    return layer


def is_pointwise(layer: AdaptedLayer) -> bool:
    """Whether mixed rows have a `bmm` form: linear layers and plain 1×1 convolutions."""
    return isinstance(layer, AdaptedLinear) or (
        layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.padding == (0, 0) and layer.groups == 1
    )


class MergedCopy:
    """One merged weight for all rows."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def linear(self, layer: AdaptedLinear, x: Tensor) -> Tensor:
        """As the layer itself, by the merged weight."""
        return F.linear(x, self._weight, layer.bias)

    def convolution(self, layer: AdaptedConv2d, x: Tensor) -> Tensor:
        """As the layer itself, by the merged weight."""
        return layer.with_weight(x, self._weight)


class MergedSlots:
    """One merged weight a unit of rows, all in one `bmm`."""

    def __init__(self, bank: Tensor) -> None:
        """`bank` is `[units, out, in]`; every unit is as many adjacent rows as any other."""
        self._bank = bank

    def linear(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        """`W[unit] · x[unit] + b`."""
        units, out, inner = self._bank.shape
        grouped = x.reshape(units, -1, inner)
        weights = self._bank.transpose(1, 2)
        made = torch.bmm(grouped, weights) if layer.bias is None else torch.baddbmm(layer.bias, grouped, weights)
        return made.view(*x.shape[:-1], out)

    def convolution(self, layer: AdaptedConv2d, x: Tensor) -> Tensor:
        """A plain 1×1 convolution is a linear layer of pixels; no copy where channels come last in memory."""
        rows, _, height, width = x.shape
        made = self.linear(layer, x.permute(0, 2, 3, 1).reshape(rows, height * width, -1))
        return made.view(rows, height, width, -1).permute(0, 3, 1, 2)


class MergedSegments:
    """One merged weight a run of rows, one convolution after the other; kernels above 1×1 have no fast grouped form."""

    def __init__(self, weights: list[Tensor], rows: list[int]) -> None:
        self._weights, self._rows = weights, rows

    def linear(self, layer: AdaptedLinear, x: Tensor) -> Tensor:
        """`W[run] · x[run] + b`."""
        parts = zip(x.split(self._rows), self._weights, strict=True)
        return torch.cat([F.linear(part, weight, layer.bias) for part, weight in parts])

    def convolution(self, layer: AdaptedConv2d, x: Tensor) -> Tensor:
        """Each run by its own weight."""
        parts = zip(x.split(self._rows), self._weights, strict=True)
        return torch.cat([layer.with_weight(part, weight) for part, weight in parts])


class RankConcatenated:
    """The base's own answer plus every unit's low-rank factors, padded to one rank, in two `bmm` (`baddbmm`)."""

    def __init__(self, down: Tensor, up: Tensor, scale: Tensor) -> None:
        """`down [units, r, in]`, `up [units, out, r]`, both unscaled; `scale [units, 1, r]` has weights and alphas."""
        self._down, self._up, self._scale = down, up, scale

    def linear(self, layer: AdaptedLinear, x: Tensor) -> Tensor:
        """`W0 · x + b + up[unit] · (scale[unit] * (down[unit] · x[unit]))`."""
        units, out, _ = self._up.shape
        made = F.linear(x, layer.weight, layer.bias)
        inner = torch.bmm(x.reshape(units, -1, x.shape[-1]), self._down.transpose(1, 2)).mul_(self._scale)
        return made.view(units, -1, out).baddbmm_(inner, self._up.transpose(1, 2)).view(made.shape)

    def convolution(self, layer: AdaptedConv2d, x: Tensor) -> Tensor:
        """Never asked: convolutions take their side path by runs."""
        raise NotImplementedError("convolutions wear ConvolutionSidePath")


class ConvolutionSidePath:
    """The base's own answer plus, for each run of rows, a convolution to its ranks and a 1×1 convolution back."""

    def __init__(self, factors: list[tuple[Tensor, Tensor] | None], rows: list[int]) -> None:
        """A run's `down [r, in, kh, kw]` and scaled `up [out, r, 1, 1]`; None where it changes nothing."""
        self._factors, self._rows = factors, rows

    def linear(self, layer: AdaptedLinear, x: Tensor) -> Tensor:
        """Never asked: linear layers wear RankConcatenated."""
        raise NotImplementedError("linear layers wear RankConcatenated")

    def convolution(self, layer: AdaptedConv2d, x: Tensor) -> Tensor:
        """Down has the base's stride, padding and dilation, up none."""
        made = layer.with_weight(x, layer.weight)
        runs = zip(made.split(self._rows), x.split(self._rows), self._factors, strict=True)
        for answer, part, factors in runs:
            if factors is not None:
                down, up = factors
                ranks = F.conv2d(part, down, None, layer.stride, layer.padding, layer.dilation)
                answer.add_(F.conv2d(ranks, up))
        return made
