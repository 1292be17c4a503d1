"""An autoencoder that keeps phase: MDCT coefficients, rounded to multiples of a step, and networks around that rounding.

Transform coding with learned parts (arXiv 1611.01704; 2007.03034 for the whole field). The MDCT is orthonormal, so an error of its numbers is
an error of the waveform, and the step alone decides the bitrate: one model serves them all. Both networks begin as nothing, where
this is a plain transform coder, and learn what that one leaves: what a rounded number most likely was (decoder), and how likely
each number is given those before it (entropy model). Encoding learns nothing: in two short trials gradients
straight through the rounding made it worse.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.stft import overlap_add
from ..errors import WavelldmError
from ..nn.layers import Chain, ChannelNorm, Conv1d, ConvNeXtBlock


@dataclass(frozen=True)
class AutoencoderConfig:
    """The autoencoder that keeps phase: MDCT, a uniform quantiser, a learned decoder, a learned entropy (autoencoder.py)."""

    sr: int = 16_000
    hop: int = 320  # coefficients per frame
    width: int = 128
    depth: int = 2  # ConvNeXt blocks of each of its two networks
    expansion: int = 2
    finest: float = (
        0.3  # step of the quantiser, as a share of the coefficients' root mean square: what it is trained on,
    )
    coarsest: float = 3.0  # from here to there
    follow: float = 0.0  # 0: one step for the whole recording, the best SNR; 1: steps follow the level of each frame, weak ones sound better
    tilt: float = (
        0.0  # 0: all steps alike, the best SNR; above: finer ones where speech is weak, that is at high frequencies
    )


@lru_cache(maxsize=8)
def basis(hop: int) -> Tensor:
    """(2 * hop, hop): sqrt(2 / M) w(n) cos(pi / M (n + 1/2 + M / 2) (k + 1/2)), with the sine window w."""
    n = torch.arange(2 * hop, dtype=torch.float64)[:, None] + 0.5
    k = torch.arange(hop, dtype=torch.float64) + 0.5
    window = (math.pi / (2 * hop) * n).sin()
    return (math.sqrt(2 / hop) * window * (math.pi / hop * (n + hop / 2) * k).cos()).float()


def frames(length: int, hop: int) -> int:
    return -(-length // hop) + 1  # one more than hops: the first and the last are half empty


def mdct(wav: Tensor, hop: int) -> Tensor:
    """wav (B, 1, N) -> coefficients (B, hop, T), T = ceil(N / hop) + 1."""
    padded = F.pad(wav[:, 0], (hop, hop + -wav.shape[-1] % hop))
    return (padded.unfold(-1, 2 * hop, hop) @ basis(hop).to(wav)).transpose(1, 2)


def imdct(coefficients: Tensor, length: int) -> Tensor:
    """Coefficients (B, hop, T) -> wav (B, 1, length), exactly what `mdct` was given."""
    hop = coefficients.shape[1]
    pieces = coefficients.transpose(1, 2) @ basis(hop).to(coefficients).T  # (B, T, 2 * hop)
    return overlap_add(pieces, hop)[:, None, hop : hop + length]


TRADE = math.log(2) / 6  # of squared error, in steps, for one bit: the slope of D = step^2 / 12 against R = -log2(step)


WIDE = 8.0  # an outlier's Laplace distribution is as many times as wide,


RARE = 0.02  # and this share of the numbers are such


STEADY = torch.tensor(1.5)  # by how many halves of a power of two the level changes from frame to frame, about


LOUDEST = 4_096.0  # steps; beyond it nothing is coded


class Coded(NamedTuple):
    wav: Tensor  # (B, 1, N), decoded
    numbers: Tensor  # (B, M, T), whole: what is sent
    bits: Tensor  # (B, T), what a frame costs
    error: Tensor  # (), mean squared error in steps


def cumulative(x: Tensor, scale: Tensor) -> Tensor:
    """Distribution function of Laplace's density with mean |x| = scale."""
    tail = 0.5 * (-x.abs() / scale).exp()
    return torch.where(x < 0, tail, 1 - tail)


def cost(numbers: Tensor, scale: Tensor) -> Tensor:
    """Bits for whole numbers under a Laplace density of that scale (with few outliers), integrated over +-1/2: -log2 p.

    An ideal arithmetic coder needs as much, and 0.01 % more. Computed in the left tail, where nothing cancels."""
    x = -numbers.abs()
    p = 0.0
    for share, width in ((1 - RARE, scale), (RARE, WIDE * scale + 0.5)):
        p = p + share * (cumulative(x + 0.5, width) - cumulative(x - 0.5, width))
    return -p.clamp_min(1e-12).log2()


def rounded(u: Tensor) -> Tensor:
    """Coefficients in steps -> whole numbers, up from 0.6 only: where most are small, a zero is worth an error."""
    return u.sign() * (u.abs().clamp(max=LOUDEST) + 0.4).floor()


def before(numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sizes that a decoder knows when it comes to (k, t): of the two lower neighbours, and in the two frames before, around k."""
    size = numbers.abs()
    lower = F.pad(size, (0, 0, 2, 0))[:, :-2] * 0.4 + F.pad(size, (0, 0, 1, 0))[:, :-1] * 0.6
    past = F.pad(size, (1, 0))[..., :-1]
    around = F.avg_pool1d(F.pad(past, (0, 0, 2, 2)).transpose(1, 2), 5, 1).transpose(1, 2)
    older = F.pad(around, (1, 0))[..., :-1]
    return lower, around, older


class Autoencoder(nn.Module):
    """wav (B, 1, N) at a step -> the same, a little different, and the bits it took."""

    Config = AutoencoderConfig

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        c = self.config = config
        self.sr = c.sr
        m = self.hop = c.hop

        def network(outputs: int, causal: bool = False) -> Chain:
            blocks = (ConvNeXtBlock(c.width, c.expansion, causal) for _ in range(c.depth))
            out = nn.Conv1d(c.width, outputs, 1)
            nn.init.zeros_(out.weight)
            nn.init.zeros_(out.bias)
            return Chain(Conv1d(m, c.width, 3, causal=causal), ChannelNorm(c.width), *blocks, ChannelNorm(c.width), out)

        self.decoder, self.entropy = network(m), network(4 * m, causal=True)
        hz = (torch.arange(m) + 0.5) * self.sr / 2 / m
        self.register_buffer(
            "weights", (1 + (hz / 500) ** 2)[:, None] ** (-c.tilt / 2), persistent=False
        )  # of the steps, (M, 1)

    def steps(self, x: Tensor, step) -> Tensor:
        """Coefficients (B, M, T) and a share of their root mean square, one or (B,) -> the step of each (B, M, T), bits to send them (B, T).

        With `follow` a frame's step follows its level, to the power of that, in whole halves of a power of two (3 dB)."""
        share = torch.as_tensor(step, dtype=x.dtype, device=x.device).reshape(-1, 1, 1)
        whole = x.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-6)  # (B, 1, 1)
        size = (share * whole * self.weights).expand(*x.shape[:2], x.shape[2])
        follow = self.config.follow
        if not follow:
            return size, torch.zeros_like(x[:, 0])
        level = x.square().mean(1, keepdim=True).sqrt() / whole  # (B, 1, T)
        halves = (2 * level.clamp_min(2**-10).log2()).round()
        return size * 2 ** (follow * halves / 2), cost(
            halves.diff(dim=2, prepend=torch.zeros_like(halves[..., :1]))[:, 0], STEADY
        )

    def scales(self, numbers: Tensor) -> Tensor:
        """How large each number is expected to be, from those sent before it: all of the earlier frames, the lower ones of its own."""
        seen = F.pad(numbers, (1, 0))[..., :-1]  # frame t sees the frames before it
        shift, *gains = self.entropy(_compressed(seen)).chunk(4, dim=1)
        start = (0.45, 0.35, 0.15)  # of a plain transform coder
        total = 0.02 + 0.03 * shift.clamp(-6, 4).exp()
        for weight, gain, size in zip(start, gains, before(numbers)):
            total = total + weight * gain.clamp(-6, 3).exp() * size
        return total

    def restore(self, numbers: Tensor, scales: Tensor) -> Tensor:
        """Whole numbers -> coefficients in steps: what they most likely were."""
        return numbers + self.decoder(_compressed(numbers)) * (scales / (1 + scales))

    def forward(self, wav: Tensor, step=1.0) -> Coded:
        """`step`: a share of the coefficients' root mean square, one number or one for each item (B,); smaller is better and costs more."""
        if wav.ndim != 3 or wav.shape[1] != 1:
            raise WavelldmError(
                f"the autoencoder takes wav (batch, 1, samples), not {tuple(wav.shape)}; put channels into the batch"
            )
        x = mdct(wav, self.hop)  # (B, M, T)
        size, side = self.steps(x, step)
        numbers = rounded(x / size)
        scales = self.scales(numbers)
        restored = self.restore(numbers, scales)
        error = (restored - x / size).square().mean()
        bits = cost(numbers, scales)
        return Coded(imdct(restored * size, wav.shape[-1]), numbers, bits.sum(1) + side, error)

    def distances(self, wav: Tensor, step) -> dict:
        """Squared error in steps, and the bits times what a bit is worth: their sum is the rate-distortion cost (arXiv 1611.01704, eq. 7)."""
        coded = self(wav, step)
        return {"error": coded.error, "rate": TRADE * coded.bits.mean() / self.hop}


def _compressed(u: Tensor) -> Tensor:
    """What the networks see of numbers in steps: sign and logarithm."""
    return u.sign() * u.abs().log1p()


def bits_per_second(coded: Coded, samples: int, sr: int) -> float:
    """Of a single item; the step itself is one more number for the whole recording: 16 bits."""
    return (float(coded.bits.sum()) + 16) / samples * sr


@torch.no_grad()
def at_bitrate(model: Autoencoder, wav: Tensor, kbits: float, rounds: int = 9) -> Coded:
    """wav (1, 1, N) coded at the step that comes nearest to a bitrate, found by halving."""
    low, high = 0.02, 30.0
    for _ in range(rounds):
        middle = math.sqrt(low * high)
        coded = model(wav, middle)
        if bits_per_second(coded, wav.shape[-1], model.sr) > 1000 * kbits:
            low = middle
        else:
            high = middle
    return coded


@torch.no_grad()
def lowest(wav: Tensor, hop: int, keep: int) -> Tensor:
    """The plainest latent that keeps phase: the `keep` lowest of each frame's `hop` MDCT coefficients, and nothing else."""
    x = mdct(wav, hop)
    x[:, keep:] = 0
    return imdct(x, wav.shape[-1])
