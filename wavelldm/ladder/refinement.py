"""Repair of a coarse mel: a network, and a filter that sharpens it. Both map log-mels (B, M, F) to log-mels."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..audio.mel import smooth
from ..nn.layers import Chain, ChannelNorm, Conv1d, ConvNeXtBlock


@dataclass(frozen=True)
class RefinementConfig:
    """The network that repairs the VAE's mel."""

    n_mels: int = 64
    width: int = 128
    depth: int = 3
    expansion: int = 2


class Refinement(nn.Module):
    """mel plus a correction by ConvNeXt blocks over time (bands are channels); untrained, the correction is 0."""

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
        """Log-mel (B, M, F) -> log-mel."""
        return mel + self.out(self.body((mel + 5) / 3))


def edges(ours: Tensor, wanted: Tensor) -> Tensor:
    """L1 distance between the differences of neighbours in time and frequency; this is where a blurred mel is wrong."""
    pairs = [(x.diff(dim=axis), y.diff(dim=axis)) for axis in (1, 2) for x, y in ((ours, wanted),)]
    return sum((a - b).abs().mean() for a, b in pairs) / 2


def post_filter(mel: Tensor, sharpen: float = 0.2) -> Tensor:
    """Raise peaks and lower valleys by `sharpen` times the difference to the mel blurred over two bands.

    Every frame keeps its energy. Formant post-filters do this in speech coders (Chen & Gersho 1995).
    """
    sharper = mel + sharpen * (mel - smooth(mel, 0, 2.0))
    return sharper + (torch.logsumexp(2 * mel, 1, keepdim=True) - torch.logsumexp(2 * sharper, 1, keepdim=True)) / 2
