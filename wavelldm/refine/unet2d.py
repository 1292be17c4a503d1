"""A U-Net over spectra: x_t (B, 2, bins, T) and step t (B,) -> a prediction (B, 2, bins, T). The two channels are real
and imaginary part.

Residual blocks of 3 x 3 convolutions into which the step is fed, attention of two heads at the coarsest level (DDPM,
arXiv 2006.11239, appendix B; for Diffiner's prior, arXiv 2210.17287). A convolution may be separable: first each
channel by itself, then each bin by itself, which takes W H d_in + d_in d_out weights instead of W H d_in d_out
(MobileNets, arXiv 1704.04861, section 3.1). Nothing but attention and convolutions mixes frames (the normalisation
looks at one bin of one frame), so T may be anything, and long recordings may be cut into windows.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion.unet import step_embedding
from ..errors import WavelldmError


@dataclass(frozen=True)
class PriorConfig:
    """The diffusion prior of clean speech over complex spectra; one entry of dims per level, finest first."""

    sr: int = 16_000
    n_fft: int = 512
    hop: int = 256
    patch: int = 2  # neighbouring bins taken together
    dims: tuple = (32, 64, 128, 192)  # channels at each level
    shrink_bins: tuple = (2, 2, 2)  # strides over frequency from each level to the next ...
    shrink_frames: tuple = (1, 2, 2)  # ... and over time
    depth: int = 1  # blocks before and after the coarser levels, at each level
    heads: int = 2
    embedding: int = 128  # channels of the embedded step
    separable: bool = True  # convolutions in two steps: each channel, then each bin
    activation: str = "silu"  # or "relu", "gelu"
    schedule: str = "cosine"  # or "linear"
    steps: int = 1000
    predicts: str = "v"  # or "z0"; "eps" with the linear schedule, as in the paper

    @property
    def bins(self) -> int:
        return self.n_fft // 2  # all but that of 0 Hz


ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU, "gelu": nn.GELU}


def fold(x: Tensor, patch: int) -> Tensor:
    """(B, C, bins, T) -> (B, C * patch, bins / patch, T): neighbouring bins become channels."""
    return x.unflatten(2, (-1, patch)).transpose(2, 3).flatten(1, 2)


def unfold(x: Tensor, patch: int) -> Tensor:
    """(B, C * patch, bins / patch, T) -> (B, C, bins, T), the way back."""
    return x.unflatten(1, (-1, patch)).transpose(2, 3).flatten(2, 3)


def convolution(
    c_in: int, c_out: int, kernel: tuple = (3, 3), stride: tuple = (1, 1), separable: bool = True
) -> nn.Module:
    """(B, c_in, bins, T) -> (B, c_out, ceil(bins / stride), ceil(T / stride)); kernels are odd."""
    padding = tuple(k // 2 for k in kernel)
    if not separable:
        return nn.Conv2d(c_in, c_out, kernel, stride, padding)
    return nn.Sequential(
        nn.Conv2d(c_in, c_in, kernel, stride, padding, groups=c_in, bias=False), nn.Conv2d(c_in, c_out, 1)
    )


class Norm(nn.LayerNorm):
    """Mean 0 and deviation 1 over the channels of each bin of each frame: (B, C, bins, T)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """x + two convolutions of it; between them the step scales and shifts every channel (FiLM, arXiv 1709.07871)."""

    def __init__(self, c_in: int, dim: int, c: PriorConfig):
        super().__init__()
        self.before, self.first = Norm(c_in), convolution(c_in, dim, separable=c.separable)
        self.between, self.second = Norm(dim), convolution(dim, dim, separable=c.separable)
        self.by_step, self.act = nn.Linear(c.embedding, 2 * dim), ACTIVATIONS[c.activation]()
        self.skip = nn.Conv2d(c_in, dim, 1) if c_in != dim else nn.Identity()
        last = self.second[-1] if c.separable else self.second
        for weight in (last.weight, last.bias, self.by_step.bias):
            nn.init.zeros_(weight)  # at first every block is the identity

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        scale, shift = self.by_step(step)[:, :, None, None].chunk(2, dim=1)  # (B, dim, 1, 1) each
        y = self.first(self.act(self.before(x)))
        return self.skip(x) + self.second(self.act(self.between(y) * (1 + scale) + shift))


class Attention(nn.Module):
    """x + self-attention over all bins of all frames."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        if dim % heads:
            raise WavelldmError(f"{dim} channels cannot be shared among {heads} heads; choose a multiple of the heads")
        self.heads, self.norm, self.qkv, self.out = heads, Norm(dim), nn.Conv2d(dim, 3 * dim, 1), nn.Conv2d(dim, dim, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1))
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # (B, heads, bins T, dim / heads)
        y = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return x + self.out(y.reshape(x.shape))


class Middle(nn.Module):
    """The coarsest level."""

    def __init__(self, dim: int, c: PriorConfig):
        super().__init__()
        self.first, self.attention, self.second = Block(dim, dim, c), Attention(dim, c.heads), Block(dim, dim, c)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        return self.second(self.attention(self.first(x, step)), step)


class Level(nn.Module):
    """Blocks, what the coarser levels below make of them, and blocks again that see both."""

    def __init__(self, dim: int, below_dim: int, stride: tuple, below: nn.Module, c: PriorConfig):
        super().__init__()
        kernel = tuple(max(3, 2 * s - 1) for s in stride)
        self.down, self.below = convolution(dim, below_dim, kernel, stride, c.separable), below
        self.up, self.stride = nn.Conv2d(below_dim, dim, 1), stride
        self.before = nn.ModuleList(Block(dim, dim, c) for _ in range(c.depth))
        self.after = nn.ModuleList(Block(2 * dim if i == 0 else dim, dim, c) for i in range(c.depth))

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        for block in self.before:
            x = block(x, step)
        y = self.up(self.below(self.down(x), step))  # (B, dim, bins / stride, T / stride)
        x = torch.cat([x, F.interpolate(y, scale_factor=tuple(map(float, self.stride)), mode="nearest")], dim=1)
        for block in self.after:
            x = block(x, step)
        return x


class UNet2d(nn.Module):
    """x_t (B, 2, bins, T), t (B,) long -> (B, 2, bins, T), any T. `patch` neighbouring bins are the channels of one
    place, which halves the work or better; and as speech differs from frequency to frequency, every place has its own
    bias."""

    def __init__(self, config: PriorConfig):
        super().__init__()
        c = self.config = config
        if not c.dims or not len(c.shrink_bins) == len(c.shrink_frames) == len(c.dims) - 1:
            raise WavelldmError(
                "dims has a width for each level, shrink_bins and shrink_frames have one fewer, "
                "a stride from each level to the next"
            )
        if c.activation not in ACTIVATIONS:
            raise WavelldmError(f"there is no activation '{c.activation}'; choose {', '.join(ACTIVATIONS)}")
        strides = list(zip(c.shrink_bins, c.shrink_frames))
        self.multiple = math.prod(c.shrink_frames)  # T is padded to one of this
        if c.bins % (c.patch * math.prod(c.shrink_bins)):
            raise WavelldmError(
                f"{c.bins} bins cannot be divided by {c.patch} and {c.shrink_bins}; "
                "choose numbers that multiply to a divisor"
            )
        self.embed = nn.Sequential(
            nn.Linear(c.dims[0], c.embedding), nn.SiLU(), nn.Linear(c.embedding, c.embedding), nn.SiLU()
        )
        self.enter = nn.Conv2d(2 * c.patch, c.dims[0], 3, padding=1)
        self.place = nn.Parameter(torch.zeros(c.dims[0], c.bins // c.patch, 1))
        network = Middle(c.dims[-1], c)
        for dim, below, stride in zip(c.dims[-2::-1], c.dims[:0:-1], strides[::-1]):
            network = Level(dim, below, stride, network, c)
        self.network = network
        self.leave = nn.Sequential(
            Norm(c.dims[0]), ACTIVATIONS[c.activation](), nn.Conv2d(c.dims[0], 2 * c.patch, 3, padding=1)
        )
        self.past = nn.Linear(c.embedding, 1)  # the share of x_t itself in the prediction, step by step
        for layer in (self.leave[-1], self.past):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.to(memory_format=torch.channels_last)  # a third faster on a CPU

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        c = self.config
        if x_t.ndim != 4 or x_t.shape[1:3] != (2, c.bins) or x_t.shape[3] == 0 or t.shape != x_t.shape[:1]:
            raise WavelldmError(
                f"x_t is (batch, 2, {c.bins}, frames) and t (batch,), not {tuple(x_t.shape)} and {tuple(t.shape)}"
            )
        step = self.embed(step_embedding(t, c.dims[0]))  # (B, embedding)
        x = fold(F.pad(x_t, (0, -x_t.shape[-1] % self.multiple)), c.patch)
        x = self.enter(x.contiguous(memory_format=torch.channels_last)) + self.place
        y = unfold(self.leave(self.network(x, step)), c.patch)[..., : x_t.shape[-1]]
        return y + self.past(step)[:, :, None, None] * x_t
