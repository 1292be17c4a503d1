"""An autoencoder that keeps phase: MDCT coefficients, quantised uniformly, a learned decoder and a learned entropy
model.

Transform coding with learned parts (arXiv 1611.01704; 2007.03034 is a survey). The MDCT is orthonormal, so the error
of its coefficients is the error of the waveform, and the quantiser's step alone decides the bitrate: one model serves
all rates. Both networks start with a last layer of zeros, where the model is a plain transform coder. The decoder
learns which value a quantised coefficient most likely had, the entropy model how likely each one is given those
before it. The encoder has no parameters: in two short trials, gradients straight through the rounding made the result
worse.
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
    """MDCT, uniform quantiser, decoder and entropy model."""

    sr: int = 16_000
    hop: int = 320  # coefficients per frame
    width: int = 128
    depth: int = 2  # ConvNeXt blocks of each of the two networks
    expansion: int = 2
    finest: float = 0.3  # smallest step in training, as a share of the coefficients' root mean square
    coarsest: float = 3.0  # largest step in training
    follow: float = 0.0  # 0: one step for the whole recording (best SNR); 1: the step follows the level of each frame
    tilt: float = 0.0  # 0: the same step at all frequencies (best SNR); above: finer steps at high frequencies


# squared error (in steps) that a bit is worth: slope of D = step^2 / 12 over R = -log2(step)
RATE_WEIGHT = math.log(2) / 6
OUTLIER_WIDTH = 8.0  # outliers have a Laplace distribution so many times as wide
OUTLIER_SHARE = 0.02  # share of the coefficients that are outliers
LEVEL_CHANGE = torch.tensor(1.5)  # mean change of the level from frame to frame, in halves of a power of two
LARGEST = 4_096.0  # steps; larger coefficients are clipped


# --- MDCT (Princen & Bradley 1986): frames two hops long, each with one hop of coefficients


@lru_cache(maxsize=8)
def basis(hop: int) -> Tensor:
    """(2 * hop, hop): sqrt(2 / M) w(n) cos(pi / M (n + 1/2 + M / 2) (k + 1/2)), with the sine window w."""
    n = torch.arange(2 * hop, dtype=torch.float64)[:, None] + 0.5
    k = torch.arange(hop, dtype=torch.float64) + 0.5
    window = (math.pi / (2 * hop) * n).sin()
    return (math.sqrt(2 / hop) * window * (math.pi / hop * (n + hop / 2) * k).cos()).float()


def frames(length: int, hop: int) -> int:
    """Number of MDCT frames: one more than hops, as the first and the last are half empty."""
    return -(-length // hop) + 1


def mdct(wav: Tensor, hop: int) -> Tensor:
    """wav (B, 1, N) -> coefficients (B, hop, T), T = ceil(N / hop) + 1."""
    padded = F.pad(wav[:, 0], (hop, hop + -wav.shape[-1] % hop))
    return (padded.unfold(-1, 2 * hop, hop) @ basis(hop).to(wav)).transpose(1, 2)


def imdct(coefficients: Tensor, length: int) -> Tensor:
    """Coefficients (B, hop, T) -> wav (B, 1, length), exactly what `mdct` was given."""
    hop = coefficients.shape[1]
    pieces = coefficients.transpose(1, 2) @ basis(hop).to(coefficients).T  # (B, T, 2 * hop)
    return overlap_add(pieces, hop)[:, None, hop : hop + length]


# --- the coder


class Coded(NamedTuple):
    """What the autoencoder makes of a recording."""

    wav: Tensor  # (B, 1, N), decoded
    numbers: Tensor  # (B, M, T), integers: what is sent
    bits: Tensor  # (B, T), of each frame
    error: Tensor  # (), mean squared error in steps


def cumulative(x: Tensor, scale: Tensor) -> Tensor:
    """Distribution function of the Laplace density with mean |x| = scale."""
    tail = 0.5 * (-x.abs() / scale).exp()
    return torch.where(x < 0, tail, 1 - tail)


def cost(numbers: Tensor, scale: Tensor) -> Tensor:
    """Bits -log2 p of integers under a Laplace density of that scale with some outliers, integrated over +-1/2.

    An arithmetic coder needs about 0.01 % more. Computed in the left tail, where differences of p keep their precision.
    """
    x = -numbers.abs()
    p = 0.0
    for share, width in ((1 - OUTLIER_SHARE, scale), (OUTLIER_SHARE, OUTLIER_WIDTH * scale + 0.5)):
        p = p + share * (cumulative(x + 0.5, width) - cumulative(x - 0.5, width))
    return -p.clamp_min(1e-12).log2()


def quantise(u: Tensor) -> Tensor:
    """Coefficients in steps -> integers, rounded up only from 0.6 on: zeros are cheap, so they may cost some error."""
    return u.sign() * (u.abs().clamp(max=LARGEST) + 0.4).floor()


def context(numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Magnitudes that the decoder knows before (k, t): of the two lower neighbours, and around k in each of two past
    frames.
    """
    size = numbers.abs()
    lower = F.pad(size, (0, 0, 2, 0))[:, :-2] * 0.4 + F.pad(size, (0, 0, 1, 0))[:, :-1] * 0.6
    past = F.pad(size, (1, 0))[..., :-1]
    around = F.avg_pool1d(F.pad(past, (0, 0, 2, 2)).transpose(1, 2), 5, 1).transpose(1, 2)
    older = F.pad(around, (1, 0))[..., :-1]
    return lower, around, older


class Autoencoder(nn.Module):
    """wav (B, 1, N) and a step -> decoded wav and the bits it takes."""

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
        tilt = (1 + (hz / 500) ** 2)[:, None] ** (-c.tilt / 2)  # of the steps over frequency, (M, 1)
        self.register_buffer("weights", tilt, persistent=False)

    def steps(self, x: Tensor, step: float | Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (B, M, T) -> their steps (B, M, T), and the bits (B, T) that describe the steps.

        `step` is a share of the root mean square of x, one number or (B,). With `follow`, the step of a frame is
        proportional to its level to that power, in multiples of 3 dB.
        """
        share = torch.as_tensor(step, dtype=x.dtype, device=x.device).reshape(-1, 1, 1)
        whole = x.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-6)  # (B, 1, 1)
        size = (share * whole * self.weights).expand(*x.shape[:2], x.shape[2])
        follow = self.config.follow
        if not follow:
            return size, torch.zeros_like(x[:, 0])
        level = x.square().mean(1, keepdim=True).sqrt() / whole  # (B, 1, T)
        halves = (2 * level.clamp_min(2**-10).log2()).round()
        change = halves.diff(dim=2, prepend=torch.zeros_like(halves[..., :1]))[:, 0]  # (B, T)
        return size * 2 ** (follow * halves / 2), cost(change, LEVEL_CHANGE)

    def scales(self, numbers: Tensor) -> Tensor:
        """Expected magnitude of each number, from those sent before it: earlier frames, and lower ones of its own
        frame.
        """
        past = F.pad(numbers, (1, 0))[..., :-1]  # frame t depends on the frames before it
        shift, *gains = self.entropy(_compressed(past)).chunk(4, dim=1)
        start = (0.45, 0.35, 0.15)  # weights of the plain transform coder
        total = 0.02 + 0.03 * shift.clamp(-6, 4).exp()
        for weight, gain, size in zip(start, gains, context(numbers)):
            total = total + weight * gain.clamp(-6, 3).exp() * size
        return total

    def dequantise(self, numbers: Tensor, scales: Tensor) -> Tensor:
        """Integers -> the most likely coefficients, in steps."""
        return numbers + self.decoder(_compressed(numbers)) * (scales / (1 + scales))

    def forward(self, wav: Tensor, step: float | Tensor = 1.0) -> Coded:
        """`step`: a share of the coefficients' root mean square, one number or (B,); smaller is better and takes more
        bits.
        """
        if wav.ndim != 3 or wav.shape[1] != 1:
            raise WavelldmError(
                f"the autoencoder takes wav (batch, 1, samples), not {tuple(wav.shape)}; put channels into the batch"
            )
        x = mdct(wav, self.hop)  # (B, M, T)
        size, side = self.steps(x, step)
        numbers = quantise(x / size)
        scales = self.scales(numbers)
        decoded = self.dequantise(numbers, scales)
        error = (decoded - x / size).square().mean()
        bits = cost(numbers, scales)
        return Coded(imdct(decoded * size, wav.shape[-1]), numbers, bits.sum(1) + side, error)

    def distances(self, wav: Tensor, step: float | Tensor) -> dict[str, Tensor]:
        """Squared error in steps, and the weighted rate: their sum is the rate-distortion loss (arXiv 1611.01704, eq.
        7).
        """
        coded = self(wav, step)
        return {"error": coded.error, "rate": RATE_WEIGHT * coded.bits.mean() / self.hop}


def _compressed(u: Tensor) -> Tensor:
    """Input of the networks: sign and logarithm of the magnitude."""
    return u.sign() * u.abs().log1p()


def bits_per_second(coded: Coded, samples: int, sr: int) -> float:
    """Bitrate of a single item, with 16 bits for the step of the whole recording."""
    return (float(coded.bits.sum()) + 16) / samples * sr


@torch.no_grad()
def at_bitrate(model: Autoencoder, wav: Tensor, kbits: float, rounds: int = 9) -> Coded:
    """wav (1, 1, N) coded at the step that gives a bitrate, found by bisection."""
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
    """The simplest latent that keeps phase: the `keep` lowest of each frame's `hop` MDCT coefficients."""
    x = mdct(wav, hop)
    x[:, keep:] = 0
    return imdct(x, wav.shape[-1])
