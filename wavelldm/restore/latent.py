"""A latent that is made for generating: 513 magnitudes every 16 ms become 48 numbers of a bounded rate, and a pitch.

The pitch draws the harmonics (a comb at its whole multiples), the 48 numbers say how high they and the noise between
them stand. Phases are not in it: those come from Griffin-Lim, which holds what is known. Shapes: magnitudes (B, 513,
T), latent z (B, 48, T), pitch (B, 2, T): octaves above 60 Hz (-1: no voice), and how well the sound repeats.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..audio import pitch
from ..audio.mel import mel_bank
from ..light.restorer import RMS
from ..nn.layers import ChannelNorm, Conv1d, ConvNeXtBlock
from .gaps import BINS, HOP, N_FFT, SR, spectrum

BANDS = 80
UNIT = math.sqrt(384.0) * RMS  # magnitude of a bin of white noise at that level
FLOOR = 1e-3  # -60 dB
KBITS = SR / HOP / math.log(2) / 1000  # nats a frame -> kbit/s
LOWEST = 60.0  # Hz, 0 octaves


@dataclass(frozen=True)
class SpeechLatentConfig:
    size: int = 48
    kbits: float = 9.0  # KL to a standard normal, a second, that training aims at
    encoder_width: int = 192
    encoder_depth: int = 2
    width: int = 256
    depth: int = 5
    expansion: int = 2


def level(wav: Tensor, known: Tensor | None = None) -> Tensor:
    """(B, N) -> the gain (B, 1) that brings its known samples to RMS."""
    share = torch.ones_like(wav) if known is None else known.to(wav)
    mean = (wav.square() * share).sum(1, keepdim=True) / share.sum(1, keepdim=True).clamp_min(1)
    return RMS / mean.clamp_min(1e-10).sqrt()


def seen(wav: Tensor) -> Tensor:
    """wav (B, N) at RMS -> magnitudes (B, 513, T) as the networks see them, about 1 where there is speech."""
    return spectrum(wav) / UNIT


def comb(octaves: Tensor) -> Tensor:
    """Octaves (B, T) -> the logarithm of what harmonics at its whole multiples leave in each bin (B, 513, T): 0 on top
    of one, the lobe of the Hann window beside it."""
    spacing = LOWEST * 2 ** octaves.clamp_min(0.0)[:, None] * (N_FFT / SR)  # bins
    bins = torch.arange(BINS, device=octaves.device, dtype=octaves.dtype)[:, None]
    off = (bins - spacing * (bins / spacing).round().clamp_min(1)).abs()
    beyond = (torch.sinc(off) / (1 - off.square()).clamp_max(-1e-3)).abs()  # more than one bin away
    within = torch.sinc(off) / (1 - off.square()).clamp_min(1e-3)
    lobe = torch.where(off < 1 - 1e-3, within, torch.where(off < 1 + 1e-3, 0.5, beyond))
    return torch.where(octaves[:, None] < 0, -8.0, lobe.clamp_min(0.02).log())


class Encoder(nn.Module):
    """Principal components of 80 log-mels, divided by their deviations, and a correction by a network that sees all
    magnitudes."""

    def __init__(self, c: SpeechLatentConfig):
        super().__init__()
        w = c.encoder_width
        self.direct = Conv1d(BANDS, 2 * c.size, 1)
        self.net = nn.Sequential(
            Conv1d(BINS, w, 1),
            ChannelNorm(w),
            *(ConvNeXtBlock(w, c.expansion) for _ in range(c.encoder_depth)),
            ChannelNorm(w),
            Conv1d(w, 2 * c.size, 1),
        )
        nn.init.zeros_(self.net[-1].weight), nn.init.zeros_(self.net[-1].bias)

    def forward(self, size: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitudes, log-mel -> mean and logarithm of the variance, (B, size, T) each."""
        with torch.autocast(size.device.type, enabled=False):
            direct = self.direct(mel.float())
        mean, spread = (direct + self.net(0.5 * (size.clamp_min(FLOOR).log() + 2)).float()).chunk(2, 1)
        return mean, spread.clamp(-9, 2)


class Decoder(nn.Module):
    """The log-mel that the components stand for, drawn as an envelope of harmonics and one of noise, and a network's
    correction of both."""

    def __init__(self, c: SpeechLatentConfig, bank: Tensor):
        super().__init__()
        self.read = Conv1d(c.size, BANDS, 1)
        self.into = Conv1d(c.size + 2, c.width, 3)
        self.body = nn.Sequential(
            ChannelNorm(c.width), *(ConvNeXtBlock(c.width, c.expansion) for _ in range(c.depth)), ChannelNorm(c.width)
        )
        self.out = Conv1d(c.width, 2 * BINS, 1)
        nn.init.normal_(self.out.weight, std=0.002)
        with torch.no_grad():
            self.out.bias[:BINS], self.out.bias[BINS:] = 0.7, -0.5
        self.register_buffer("spread", between_bands(bank), persistent=False)  # (513, 80)
        self.register_buffer("wide", 0.5 * bank.sum(1).log()[:, None], persistent=False)  # (80, 1)

    def forward(self, z: Tensor, pitch: Tensor) -> Tensor:
        """Latent (B, size, T), pitch (B, 2, T) -> logarithms of magnitudes (B, 513, T)."""
        octaves = pitch[:, 0]
        told = torch.stack([octaves.clamp_min(0) - 1.0, (octaves >= 0).to(z.dtype)], 1)
        with torch.autocast(z.device.type, enabled=False):
            base = self.spread @ (self.read(z.float()) - self.wide)
        tones, noise = self.out(self.body(self.into(torch.cat([z, told], 1)))).float().chunk(2, 1)
        return base + 0.5 * torch.logaddexp(2 * (tones + comb(octaves.float())), 2 * noise)


def between_bands(bank: Tensor) -> Tensor:
    """A mel bank (80, 513) -> (513, 80): each bin on the straight line between the two bands next to it."""
    bins = torch.arange(bank.shape[1])
    middle = (bank * bins).sum(1) / bank.sum(1)  # of each band, in bins
    near = (bins[:, None] - middle).abs().argsort(1)[:, :2].sort(1).values  # (513, 2)
    left, right = middle[near[:, 0]], middle[near[:, 1]]
    mix = ((bins - left) / (right - left)).clamp(0, 1)
    spread = torch.zeros(bank.shape[1], len(bank))
    spread[bins, near[:, 0]] = 1 - mix
    spread[bins, near[:, 1]] += mix
    return spread


class SpeechLatent(nn.Module):
    """`encode` gives mean and logarithm of the variance of z; `decode` logarithms of magnitudes."""

    Config = SpeechLatentConfig

    def __init__(self, config: SpeechLatentConfig):
        super().__init__()
        self.config = config
        self.register_buffer("bank", mel_bank(SR, N_FFT, BANDS, 0.0, 8000.0, "htk", "none"), persistent=False)
        self.encoder, self.decoder = Encoder(config), Decoder(config, self.bank)

    def mel(self, size: Tensor) -> Tensor:
        """Magnitudes (B, 513, T) -> half the logarithm of the energy of 80 bands (B, 80, T)."""
        return 0.5 * ((self.bank @ size.square()) + 1e-5).log()

    def encode(self, size: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder(size, self.mel(size))

    def decode(self, z: Tensor, pitch: Tensor) -> Tensor:
        return self.decoder(z, pitch)

    def read(self, z: Tensor) -> Tensor:
        """The log-mel (B, 80, T) that z stands for. It is linear in z."""
        return self.decoder.read(z)

    @torch.no_grad()
    def begin(self, sizes: Tensor, apart: float = 0.02) -> None:
        """Principal components of the log-mels of magnitudes (B, 513, T) as a start; `apart`: the variance up to which
        a log-mel may be wrong."""
        mel = self.mel(sizes).transpose(1, 2).flatten(0, 1).double()
        middle, n = mel.mean(0), self.config.size
        values, vectors = torch.linalg.eigh(torch.cov(mel.T))
        values, vectors = values.flip(0)[:n].clamp_min(1e-6), vectors.flip(1)[:, :n]
        into = (vectors / values.sqrt()).T  # (size, 80)
        direct, read = self.encoder.direct, self.decoder.read
        direct.weight.zero_(), direct.bias.zero_()
        direct.weight[:n, :, 0], direct.bias[:n] = into.float(), -(into @ middle).float()
        direct.bias[n:] = (apart / values).clamp(max=1.0).log().float()
        read.weight[..., 0], read.bias[:] = (vectors * values.sqrt()).float(), middle.float()


@torch.no_grad()
def heard_pitch(wav: Tensor) -> Tensor:
    """wav (B, N) -> pitch (B, 2, 1 + N // HOP): the best path through YIN's scores, each at the top of a parabola
    through its neighbours."""
    count = 1 + wav.shape[1] // HOP
    late = torch.nn.functional.pad(wav[:, None], (HOP // 2, HOP))  # so that frame t lies around sample t * HOP
    score = pitch.scores(late, SR, HOP)[..., :count]  # (B, S, T)
    path = pitch.track(score)  # (B, T)
    at = path.clamp(1, pitch.COUNT - 2)
    a, b, c = (score.gather(1, (at + k)[:, None])[:, 0] for k in (-1, 0, 1))
    place = at + (0.5 * (a - c) / (a - 2 * b + c).clamp_max(-1e-6)).clamp(-0.5, 0.5)
    octaves = place * (math.log2(pitch.HIGH / pitch.LOW) / (pitch.COUNT - 1))
    return torch.stack([torch.where(path < pitch.COUNT, octaves, -1.0), score.amax(1)], 1)
