"""A waveform denoiser conditioned on a timestep t, which is the noise level of its input.

A strided convolutional encoder, the embedded t added at the bottleneck, a decoder of transposed convolutions. On the
cosine schedule every t has one signal-to-noise ratio, alpha_bar / (1 - alpha_bar) (arXiv 2006.11239, eq. 4, and
2102.09672, eq. 17); read backwards, the ratio of a mixture is its t. In training it is known. Afterwards a small head
estimates it from what the encoder sees, or the network's own output does, or the caller says it.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ..audio.blocks import cross_faded
from ..diffusion.schedule import make, snr
from ..diffusion.unet import step_embedding
from ..errors import WavelldmError


@dataclass(frozen=True)
class WaveConfig:
    """The sizes of the waveform denoiser, and what its t means."""

    sr: int = 16_000
    widths: tuple = (64, 128, 256, 512)  # channels of each layer ...
    stride: int = 4  # ... that many times slower than the one before
    kernel: int = 15
    embedding: int = 128  # numbers that t becomes
    dropout: float = 0.1
    skips: bool = True  # from each layer of the encoder to its partner, and from the input to the output
    leveled: bool = True  # t is the noise level; False: drawn at random, as the original had it
    spectral: bool = False  # spectral normalisation of all convolutions
    resolutions: tuple = (256, 512, 1024)  # STFT windows of the loss, in samples


LOG_SNR = snr(make("cosine", 1000)).log().flip(0)  # (1000,) float64, rising: entry i belongs to t = 999 - i


LAST = len(LOG_SNR) - 1  # the t of pure noise


def level(clean: Tensor, noise: Tensor) -> Tensor:
    """(B, 1, N) each -> t (B,), a real number from 0 (clean) to 999 (noise): where the schedule has the ratio of
    their powers.
    """
    powers = [x.detach().double().square().mean((1, 2)).clamp_min(1e-20) for x in (clean, noise)]
    table = LOG_SNR.to(clean.device)
    ratio = (powers[0] / powers[1]).log().clamp(table[0], table[-1])
    above = torch.searchsorted(table, ratio).clamp(1, LAST)
    low, high = table[above - 1], table[above]
    return (LAST - (above - 1 + (ratio - low) / (high - low))).float()


class WaveDenoiser(nn.Module):
    """noisy wav (B, 1, N) [, t (B,)] -> cleaned wav (B, 1, N), any N."""

    Config = WaveConfig

    def __init__(self, config: WaveConfig = WaveConfig()):
        super().__init__()
        c = self.config = config
        if c.kernel % 2 == 0 or c.kernel < c.stride:
            raise WavelldmError("the kernel is odd and at least as long as the stride; change one of them")
        wrap = spectral_norm if c.spectral else nn.Identity()
        half, sizes = c.kernel // 2, (1, *c.widths)
        pairs = list(zip(sizes, sizes[1:]))
        self.down = nn.ModuleList(wrap(nn.Conv1d(a, b, c.kernel, c.stride, half)) for a, b in pairs)
        self.up = nn.ModuleList()
        for i, (a, b) in enumerate(reversed(pairs)):
            inputs = 2 * b if i and c.skips else b
            self.up.append(wrap(nn.ConvTranspose1d(inputs, a, c.kernel, c.stride, half, c.stride - 1)))
        if not c.spectral:
            for conv in [*self.down, *self.up]:  # so that the sound, not the biases, is what deep layers see
                nn.init.kaiming_normal_(conv.weight, 0.2)
                nn.init.zeros_(conv.bias)
        if c.skips and not c.spectral:  # at first the input comes out as it is; weights of 0 have no spectral norm
            nn.init.zeros_(self.up[-1].weight)
            nn.init.zeros_(self.up[-1].bias)
        self.dropout = nn.Dropout(c.dropout)
        activation, width = nn.LeakyReLU(0.2), sizes[-1]
        self.step_embedding = nn.Sequential(nn.Linear(c.embedding, width), activation, nn.Linear(width, width))
        self.level_head = None
        if c.leveled:
            self.level_head = nn.Sequential(nn.Linear(width, width // 2), activation, nn.Linear(width // 2, 1))

    @property
    def sr(self) -> int:
        return self.config.sr

    @property
    def window(self) -> int:
        """Samples that are cleaned at a time: one second."""
        return self.config.sr

    @property
    def overlap(self) -> int:
        """Samples that two neighbouring windows share."""
        return self.config.sr // 4

    def clean_and_estimate(
        self, noisy: Tensor, t: Tensor | None = None, use_estimate: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """noisy (B, 1, N) -> cleaned (B, 1, N), and the network's estimate of t (B,), 0 where t means nothing.

        It uses t (B,), where given, except for the items with `use_estimate` (B,) True.
        """
        n, skips = noisy.shape[-1], []
        noisy = F.pad(noisy, (0, -n % self.config.stride ** len(self.down)))
        loudness = noisy.square().mean((1, 2), keepdim=True).sqrt()  # (B, 1, 1): the network hears all equally loud
        x = noisy / loudness.clamp_min(1e-5)
        for conv in self.down:
            x = self.dropout(F.leaky_relu(conv(x), 0.2))
            skips.append(x)
        if self.level_head is None:
            estimate = noisy.new_zeros(len(x))
        else:
            estimate = LAST * torch.sigmoid(self.level_head(x.mean(-1))[:, 0].float())
        if t is None:
            t = estimate.detach()
        elif use_estimate is not None:
            t = torch.where(use_estimate, estimate.detach(), t)
        x = x + self.step_embedding(step_embedding(t, self.config.embedding))[:, :, None]
        skips.pop()
        for i, conv in enumerate(self.up):
            x = conv(torch.cat([x, skips.pop()], dim=1) if i and self.config.skips else x)
            x = self.dropout(F.leaky_relu(x, 0.2)) if i < len(self.up) - 1 else x
        x = loudness * x.float()
        x = noisy + x if self.config.skips else x  # the outermost skip: the network says what to change
        return x[..., :n], estimate

    def clean(self, noisy: Tensor, steps: int = 1) -> Tensor:
        """In one piece. After the first step t is read off what was taken away, and the noisy sound cleaned again."""
        if steps != 1 and not self.config.leveled:
            raise WavelldmError(
                "this network's t is no noise level, so further steps have nothing to tell it; leave --steps out"
            )
        out = self(noisy)
        for _ in range(steps - 1):
            out = self(noisy, level(out, noisy - out))
        return out

    def forward(self, noisy: Tensor, t: Tensor | None = None) -> Tensor:
        return self.clean_and_estimate(noisy, t)[0]

    @torch.no_grad()
    def clean_long(self, noisy: Tensor, steps: int = 1) -> Tensor:
        """noisy (B, 1, N) -> cleaned (B, 1, N), without gradients: any length, in windows that overlap."""
        parts = cross_faded([noisy], partial(self.clean, steps=steps), self.window, self.overlap, pad=True)
        return torch.cat(list(parts), dim=-1)
