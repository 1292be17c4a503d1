"""SEGAN (Pascual et al., arXiv 1703.09452): a generator that turns noisy samples into clean ones, and a critic of
pairs.

Strided convolutions of 31 taps halve the rate from layer to layer, transposed ones double it again, and each layer of
the decoder also sees its partner of the encoder. Both networks work on pre-emphasised sound. Two departures: weight
normalisation takes the place of virtual batch normalisation, and the critic gives a verdict for every frame of its
last layer instead of one for 16,384 samples, so that crops may have any length.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ..audio.blocks import cross_faded
from ..errors import WavelldmError


@dataclass(frozen=True)
class SeganConfig:
    """The sizes of SEGAN, scaled down to at most 256 channels."""

    sr: int = 16_000
    widths: tuple = (16, 32, 32, 64, 64, 128, 128, 256)  # channels of each layer, twice as slow as the one before
    kernel: int = 31
    latent: bool = False  # a random z beside the encoded sound
    emphasis: float = 0.95  # y[n] = x[n] - emphasis x[n - 1] is what the networks see
    window: int = 16_384  # samples that are cleaned at a time


def emphasise(wav: Tensor, amount: float, before: Tensor | None = None) -> Tensor:
    """y[n] = x[n] - amount x[n - 1], (..., N) -> (..., N); `before` (..., 1) is the sample before, else 0."""
    before = torch.zeros_like(wav[..., :1]) if before is None else before
    return wav - amount * torch.cat([before, wav], dim=-1)[..., : wav.shape[-1]]


def deemphasise(wav: Tensor, amount: float, before: Tensor | None = None) -> Tensor:
    """The inverse, x[n] = y[n] + amount x[n - 1]: 1 / (1 - a z^-1) is the product of all 1 + (a z^-1)^(2^k)."""
    reach, n = 1, wav.shape[-1]
    while reach < n and amount**reach > 1e-9:
        wav = wav + amount**reach * F.pad(wav, (reach, 0))[..., :n]
        reach *= 2
    return wav if before is None else wav + before * amount ** torch.arange(1, n + 1, device=wav.device)


class Segan(nn.Module):
    """noisy wav (B, 1, N) -> cleaned wav (B, 1, N), any N."""

    Config = SeganConfig

    def __init__(self, config: SeganConfig = SeganConfig()):
        super().__init__()
        c = self.config = config
        if c.kernel % 2 == 0 or c.window % 2 ** len(c.widths):
            raise WavelldmError(
                f"the kernel is odd, and the window a multiple of {2 ** len(c.widths)} for {len(c.widths)} layers"
            )
        half, sizes = c.kernel // 2, (1, *c.widths)
        pairs = list(zip(sizes, sizes[1:]))
        self.down = nn.ModuleList(nn.Conv1d(a, b, c.kernel, 2, half) for a, b in pairs)
        self.activation_down = nn.ModuleList(nn.PReLU(b) for _, b in pairs)
        self.up = nn.ModuleList()
        for i, (a, b) in enumerate(reversed(pairs)):
            inputs = 2 * b if i or c.latent else b  # beside the layer below stands a skip, or at the bottom z
            self.up.append(nn.ConvTranspose1d(inputs, a, c.kernel, 2, half, 1))
        self.activation_up = nn.ModuleList(nn.PReLU(a) for a, _ in reversed(pairs[1:]))
        for conv in [*self.down, *self.up]:  # quiet sound would drown in random biases
            nn.init.xavier_normal_(conv.weight)
            nn.init.zeros_(conv.bias)

    @property
    def sr(self) -> int:
        return self.config.sr

    @property
    def window(self) -> int:
        """Samples that are cleaned at a time."""
        return self.config.window

    @property
    def overlap(self) -> int:
        """Samples that two neighbouring windows share."""
        return self.config.window // 4

    def draw(self, batch: int, samples: int, generator: torch.Generator | None = None) -> Tensor | None:
        """z (batch, widths[-1], frames) for so many samples, or None for a network without."""
        if not self.config.latent:
            return None
        shape = batch, self.config.widths[-1], -(-samples // 2 ** len(self.config.widths))
        return torch.randn(shape, generator=generator)

    def generate(self, noisy: Tensor, z: Tensor | None = None) -> Tensor:
        """Pre-emphasised noisy (B, 1, n) [, z (B or 1, D, frames)] -> cleaned, pre-emphasised still, in one piece."""
        if (z is None) == self.config.latent:
            raise WavelldmError("this generator " + ("needs a z; see Segan.draw" if z is None else "takes no z"))
        n, x, skips = noisy.shape[-1], noisy, []
        x = F.pad(x, (0, -n % 2 ** len(self.down)))
        for conv, activation in zip(self.down, self.activation_down):
            x = activation(conv(x))
            skips.append(x)
        skips[-1] = z
        for i, conv in enumerate(self.up):
            beside = skips.pop()
            x = conv(x if beside is None else torch.cat([x, beside.to(x).expand(len(x), -1, -1)], dim=1))
            x = self.activation_up[i](x) if i < len(self.activation_up) else torch.tanh(x)
        return x[..., :n]

    def clean(self, noisy: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pre-emphasised noisy (B, 1, n) -> cleaned, pre-emphasised still, in one piece, all with the same z."""
        return self.generate(noisy, self.draw(1, noisy.shape[-1], generator))

    @torch.no_grad()
    def forward(self, wav: Tensor) -> Tensor:
        """Any length, in windows that overlap, without gradients: what is trained is `generate`."""
        clean, emphasis = partial(self.clean, generator=torch.Generator().manual_seed(0)), self.config.emphasis
        parts = cross_faded([emphasise(wav, emphasis)], clean, self.window, self.overlap, pad=True)
        return deemphasise(torch.cat(list(parts), dim=-1), emphasis)


class Critic(nn.Module):
    """Pre-emphasised noisy and other (B, 1, n) -> verdicts (B, 1, frames): is `other` the clean twin of `noisy`?"""

    def __init__(self, config: SeganConfig = SeganConfig()):
        super().__init__()
        sizes = (2, *config.widths)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(a, b, config.kernel, 2, config.kernel // 2)) for a, b in zip(sizes, sizes[1:])
        )
        self.out = nn.Conv1d(sizes[-1], 1, 1)

    def forward(self, noisy: Tensor, other: Tensor) -> Tensor:
        x = torch.cat([noisy, other], dim=1)  # (B, 2, n)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.3)
        return self.out(x)


def critic_loss(true: Tensor, false: Tensor) -> Tensor:
    """Least squares with the targets 1 for (noisy, clean) and 0 for (noisy, enhanced) (eq. 3)."""
    return 0.5 * (true - 1).square().mean() + 0.5 * false.square().mean()


def generator_loss(false: Tensor) -> Tensor:
    """Least squares with the target 1 for (noisy, enhanced): the generator is to be taken for true (eq. 4)."""
    return 0.5 * (false - 1).square().mean()
