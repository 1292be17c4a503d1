"""The latent of sounds that text turns into: log-mel (B, 64, F) -> (B, 24, F / 4) and back, a small 1-D VAE.

Four frames of all bands are the channels of one place, so that a second is 25 places: the diffusion then has few steps
of time to think about, and each knows all frequencies. The mel VAE of mel/vae.py, which keeps the bands apart, has five
times as many numbers. It serves the published systems; this one is what a CPU can learn to fill in an hour.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.mel import MELS, LogMel, MelConfig
from ..nn.layers import ChannelNorm, Conv1d, ConvNeXtBlock


@dataclass(frozen=True)
class SoundVAEConfig:
    mel: MelConfig = MELS["audioldm2"]
    size: int = 24  # channels of the latent
    fold: int = 4  # frames that become one place
    width: int = 128
    encoder_depth: int = 2
    depth: int = 3
    expansion: int = 2
    shift: float = -7.0  # the network sees (mel - shift) / scale
    scale: float = 3.0
    kl: float = 1e-3  # weight of the KL divergence


class SoundVAE(nn.Module):
    """`encode` gives mean and logarithm of the variance; `normalise` brings latents to deviation one for diffusion."""

    Config = SoundVAEConfig

    def __init__(self, config: SoundVAEConfig):
        super().__init__()
        c = self.config = config
        self.mel, inside = LogMel(c.mel), c.mel.n_mels * c.fold

        def body(depth: int) -> list:
            blocks = [ConvNeXtBlock(c.width, c.expansion) for _ in range(depth)]
            return [ChannelNorm(c.width), *blocks, ChannelNorm(c.width)]

        self.encoder = nn.Sequential(Conv1d(inside, c.width, 1), *body(c.encoder_depth), Conv1d(c.width, 2 * c.size, 1))
        self.decoder = nn.Sequential(Conv1d(c.size, c.width, 3), *body(c.depth), Conv1d(c.width, inside, 1))
        self.register_buffer("middle", torch.zeros(c.size, 1))
        self.register_buffer("spread", torch.ones(c.size, 1))

    @property
    def rate(self) -> float:
        """Places a second."""
        return self.config.mel.frame_rate / self.config.fold

    def encode(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, F) -> mean and logarithm of the variance, each (B, D, ceil(F / fold))."""
        c = self.config
        x = F.pad((log_mel - c.shift) / c.scale, (0, -log_mel.shape[-1] % c.fold), mode="replicate")
        x = x.unflatten(2, (-1, c.fold)).transpose(2, 3).flatten(1, 2)  # (B, M fold, F / fold)
        mean, spread = self.encoder(x).chunk(2, 1)
        return mean, spread.clamp(-12, 4)

    def decode(self, z: Tensor) -> Tensor:
        """(B, D, T) -> log-mel (B, M, fold T)."""
        c = self.config
        x = self.decoder(z).unflatten(1, (c.mel.n_mels, c.fold)).transpose(2, 3).flatten(2)
        return (x * c.scale + c.shift).clamp_min(-11.6)  # the logarithm of the floor

    def normalise(self, z: Tensor) -> Tensor:
        return (z - self.middle) / self.spread

    def denormalise(self, z: Tensor) -> Tensor:
        return z * self.spread + self.middle
