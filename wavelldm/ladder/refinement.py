"""What comes after a coarse mel: a network that repairs it, and a filter that sharpens it. Both take and give log-mels (B, M, F)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..audio.mel import smooth
from ..nn.layers import Chain, ChannelNorm, Conv1d, ConvNeXtBlock


@dataclass(frozen=True)
class RefinementConfig:
    """The network that repairs the VAE's mel (refinenet.py)."""

    n_mels: int = 64
    width: int = 128
    depth: int = 3
    expansion: int = 2


class Refinement(nn.Module):
    """mel + what ConvNeXt blocks over time (the bands are their channels) find missing in it; untrained, nothing."""

    Config = RefinementConfig

    def __init__(self, config: RefinementConfig):
        super().__init__()
        c = self.config = config
        m = c.n_mels
        blocks = (ConvNeXtBlock(c.width, c.expansion) for _ in range(c.depth))
        self.body = Chain(Conv1d(m, c.width, 7), ChannelNorm(c.width), *blocks, ChannelNorm(c.width))
        self.out = nn.Conv1d(c.width, m, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, mel: Tensor) -> Tensor:
        return mel + self.out(self.body((mel + 5) / 3))


def edges(ours: Tensor, wanted: Tensor) -> Tensor:
    """L1 of the differences between neighbours in time and in frequency: a blurred mel is near everywhere but here."""
    pairs = [(x.diff(dim=axis), y.diff(dim=axis)) for axis in (1, 2) for x, y in ((ours, wanted),)]
    return sum((a - b).abs().mean() for a, b in pairs) / 2


def post_filter(mel: Tensor, sharpen: float = 0.2, steady: float = 0.0) -> Tensor:
    """Peaks up and valleys down, by `sharpen` times the distance to a mel blurred over two bands; `steady`: blur over time first, in frames.

    Every frame keeps its energy, so nothing gets louder. What formant post-filters do in speech coders (Chen & Gersho 1995)."""
    steadied = smooth(mel, steady, 0) if steady else mel
    sharper = steadied + sharpen * (steadied - smooth(steadied, 0, 2.0))
    return sharper + (torch.logsumexp(2 * mel, 1, keepdim=True) - torch.logsumexp(2 * sharper, 1, keepdim=True)) / 2
