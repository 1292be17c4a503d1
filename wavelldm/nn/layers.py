"""Layers on x (B, C, T), each in one form for whole signals and one for streams.

`layer(x)` takes the whole signal. A stream comes in blocks of any length, also of none:

    state = layer.initial_state(batch)
    y, state = layer.step(x, state)  # for every block

The outputs of all blocks, joined, equal `layer` of the whole. A state is never changed in place. A layer without `step`
treats each frame by itself. Only layers built with `causal=True` stream.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import WavelldmError


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def require_causal(layer: nn.Module) -> None:
    if not layer.causal:
        raise WavelldmError("this model looks into the future and cannot stream; build it with causal=True")


class Conv1d(nn.Conv1d):
    """Convolution, T -> ceil(T / stride) frames. Causal: frame t sees nothing after sample (t + 1) * stride - 1."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        causal: bool = False,
    ):
        super().__init__(c_in, c_out, kernel, stride, dilation=dilation, groups=groups)
        self.causal = causal
        self.span = (kernel - 1) * dilation + 1  # samples that one output frame sees
        self.extra = self.span - stride  # samples to add so that T whole strides give T frames
        if self.extra < 0:
            raise WavelldmError(f"stride {stride} needs a kernel that spans it, not {self.span} samples; lengthen it")

    def forward(self, x: Tensor) -> Tensor:
        left = self.extra if self.causal else self.extra // 2
        short = -x.shape[-1] % self.stride[0]
        return super().forward(F.pad(x, (left, self.extra - left + short)))

    def initial_state(self, batch: int) -> Tensor:
        """The input that later frames still need: (B, C, extra), later up to span - 1."""
        require_causal(self)
        return self.weight.new_zeros(batch, self.in_channels, self.extra)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x, stride = torch.cat([state, x], dim=-1), self.stride[0]
        count = max(0, (x.shape[-1] - self.span) // stride + 1)
        if count == 0:
            return x.new_zeros(x.shape[0], self.out_channels, 0), x
        return super().forward(x[..., : (count - 1) * stride + self.span]), x[..., count * stride :]


class ConvTranspose1d(nn.ConvTranspose1d):
    """Transposed convolution, T -> T * stride samples. Causal: frame t reaches sample t * stride and later ones."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, causal: bool = False):
        super().__init__(c_in, c_out, kernel, stride)
        self.causal = causal
        self.extra = kernel - stride  # samples by which the last frame reaches beyond the end
        if self.extra < 0:
            raise WavelldmError(f"stride {stride} needs a kernel at least as long, not {kernel}; lengthen it")

    def forward(self, x: Tensor) -> Tensor:
        left = 0 if self.causal else self.extra // 2
        return super().forward(x)[..., left : left + x.shape[-1] * self.stride[0]]

    def initial_state(self, batch: int) -> Tensor:
        """What past frames add to the samples to come: (B, C, extra)."""
        require_causal(self)
        return self.weight.new_zeros(batch, self.out_channels, self.extra)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        ready = x.shape[-1] * self.stride[0]
        if ready == 0:
            return x.new_zeros(x.shape[0], self.out_channels, 0), state
        y = F.conv_transpose1d(x, self.weight, None, self.stride)  # (B, C, ready + extra)
        y = y + F.pad(state, (0, ready))
        return y[..., :ready] + self.bias[:, None], y[..., ready:]


class Chain(nn.Sequential):
    """Layers one after the other."""

    def initial_state(self, batch: int) -> list:
        """The states of all layers, None for those that have none."""
        return [layer.initial_state(batch) if hasattr(layer, "step") else None for layer in self]

    def step(self, x: Tensor, state: list) -> tuple[Tensor, list]:
        new = []
        for layer, before in zip(self, state):
            x, after = layer.step(x, before) if hasattr(layer, "step") else (layer(x), None)
            new.append(after)
        return x, new


class Residual(Chain):
    """x + layers(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)

    def step(self, x: Tensor, state: list) -> tuple[Tensor, list]:
        y, state = super().step(x, state)
        return x + y, state


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each frame."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class ConvNeXtBlock(nn.Module):
    """ConvNeXt (arXiv 2201.03545) in 1-D: mix in time per channel, then mix channels per frame; layer scale."""

    def __init__(self, dim: int, expansion: int = 4, causal: bool = False):
        super().__init__()
        self.depthwise = Conv1d(dim, dim, 7, groups=dim, causal=causal)
        self.norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, expansion * dim)
        self.narrow = nn.Linear(expansion * dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), 0.1))

    def mix(self, y: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T), frame by frame."""
        y = self.norm(y.transpose(1, 2))  # (B, T, C)
        y = self.scale * self.narrow(F.gelu(self.widen(y)))
        return y.transpose(1, 2)  # (B, C, T)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.depthwise(x))

    def initial_state(self, batch: int) -> Tensor:
        return self.depthwise.initial_state(batch)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.depthwise.step(x, state)
        return x + self.mix(y), state
