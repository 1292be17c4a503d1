"""From a log-mel to sound, by a network: HiFi-GAN in the shape that SpeechT5 and AudioLDM2 use, and a small one of
our own.

The published ones are found by name (`load_hifigan`); ours learns on a CPU in minutes, because it learns magnitudes
only.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.files import fit
from ..audio.mel import MELS, LogMel, MelConfig, griffin_lim, mel_to_magnitude
from ..audio.stft import POWER, magnitude, stft
from ..errors import WavelldmError
from ..nn.layers import Chain, ChannelNorm, Conv1d, ConvNeXtBlock
from .published import fetch


@dataclass(frozen=True)
class VocoderConfig:
    """The small vocoder: what a mel leaves open between its bands, and the phases, by Griffin-Lim (vocoder.py)."""

    mel: MelConfig = MELS["audioldm2"]
    width: int = 160  # channels
    depth: int = 4  # ConvNeXt blocks
    expansion: int = 2
    rounds: int = 32  # of Griffin-Lim


START = 5  # iterations towards magnitudes that fit the mel; the network does the rest


# The front ends that published vocoders were trained on, by (bands, hop).
FRONTS = {(MELS[name].n_mels, MELS[name].hop): name for name in ("audioldm2", "speecht5")}


def _conv(width: int, kernel: int, dilation: int = 1) -> nn.Conv1d:
    return nn.Conv1d(width, width, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2)


class HiFiGANVocoder(nn.Module):
    """HiFi-GAN (arXiv 2010.05646) as transformers' SpeechT5HifiGan has it: log-mel (B, M, F) -> wav (B, 1, about F *
    hop).

    Not `decoders.HiFiGAN`, which keeps to whole hops: where a kernel is an odd number of samples longer than its
    stride, this one gives a sample too many at the end, and the published weights have learnt with it.
    """

    def __init__(self, n_mels=64, initial=1024, rates=(5, 4, 2, 2, 2), kernels=(16, 16, 8, 4, 4), inner=(3, 7, 11),
                 dilations=((1, 3, 5),) * 3, slope=0.1, normalise=False):  # fmt: skip
        super().__init__()
        self.hop, self.slope, self.normalise = math.prod(rates), slope, normalise
        widths = [initial // 2**i for i in range(len(rates) + 1)]
        self.first = nn.Conv1d(n_mels, initial, 7, padding=3)
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(a, b, k, r, (k - r) // 2) for a, b, r, k in zip(widths, widths[1:], rates, kernels)
        )
        self.stages = nn.ModuleList(  # stages[i][j][d]: two convolutions, kernel j, dilation d
            nn.ModuleList(
                nn.ModuleList(nn.ModuleList([_conv(w, k, d), _conv(w, k)]) for d in ds)
                for k, ds in zip(inner, dilations)
            )
            for w in widths[1:]
        )
        self.last = nn.Conv1d(widths[-1], 1, 7, padding=3)
        self.register_buffer("mean", torch.zeros(n_mels))
        self.register_buffer("scale", torch.ones(n_mels))

    def forward(self, mel: Tensor) -> Tensor:
        if self.normalise:
            mel = (mel - self.mean[:, None]) / self.scale[:, None]
        x = self.first(mel)
        for up, stage in zip(self.ups, self.stages):
            x = up(F.leaky_relu(x, self.slope))
            total = 0
            for block in stage:
                y = x
                for one, two in block:
                    y = y + two(F.leaky_relu(one(F.leaky_relu(y, self.slope)), self.slope))
                total = total + y
            x = total / len(stage)
        return torch.tanh(self.last(F.leaky_relu(x)))  # slope 0.01 here, as in the original


def our_key(theirs: str, kernels: int) -> str:
    """Name of a SpeechT5HifiGan parameter -> ours. `kernels`: residual blocks per stage, which it counts in one row."""
    name = theirs.replace("conv_pre.", "first.").replace("conv_post.", "last.").replace("upsampler.", "ups.")
    block = re.fullmatch(r"resblocks\.(\d+)\.convs([12])\.(\d+)\.(.*)", name)
    if block:
        row, pair, dilation, rest = block.groups()
        name = f"stages.{int(row) // kernels}.{int(row) % kernels}.{dilation}.{int(pair) - 1}.{rest}"
    return name


def folded(weights: dict) -> dict:
    """Weights under weight norm (either of torch's namings) -> plain ones: w = g v / |v|, the norm over all but the
    first axis."""
    out = {}
    for name, value in weights.items():
        for size, direction in (
            ("weight_g", "weight_v"),
            ("parametrizations.weight.original0", "parametrizations.weight.original1"),
        ):
            if name.endswith(size):
                stem = name.removesuffix(size)
                v = weights[stem + direction]
                out[stem + "weight"] = value * v / v.flatten(1).norm(dim=1).view(-1, *[1] * (v.ndim - 1))
                break
            if name.endswith(direction):
                break
        else:
            out[name] = value
    return out


def from_transformers(config: Any, weights: dict) -> HiFiGANVocoder:
    """A SpeechT5HifiGan's config and state_dict -> ours, equal in every output."""
    vocoder = HiFiGANVocoder(
        config.model_in_dim, config.upsample_initial_channel, config.upsample_rates, config.upsample_kernel_sizes,
        config.resblock_kernel_sizes, config.resblock_dilation_sizes, config.leaky_relu_slope, config.normalize_before,
    )  # fmt: skip
    kernels = len(config.resblock_kernel_sizes)
    vocoder.load_state_dict({our_key(name, kernels): value for name, value in folded(weights).items()})
    return vocoder.eval()


def load_hifigan(name: str) -> tuple[HiFiGANVocoder, MelConfig]:
    """A published vocoder, by its name on the hub or as a folder, and the front end it takes (see `speak`)."""
    theirs = fetch("transformers", "SpeechT5HifiGan", name, "vocoder")
    vocoder = from_transformers(theirs.config, theirs.state_dict())
    known = FRONTS.get((theirs.config.model_in_dim, vocoder.hop))
    if known is None:
        raise WavelldmError(
            f"'{name}' takes {theirs.config.model_in_dim} bands, {vocoder.hop} samples apart; no front end here "
            f"has that ({', '.join(f'{m} bands and {h} samples' for m, h in FRONTS)}); choose another vocoder"
        )
    return vocoder, MELS[known]


@torch.no_grad()
def speak(vocoder: HiFiGANVocoder, log_mel: Tensor, config: MelConfig, length: int) -> Tensor:
    """Natural log-mel (B, M, F) -> wav (B, 1, length).

    SpeechT5 counts in decimal logarithms, AudioLDM2 in natural ones.
    """
    return fit(vocoder(log_mel / math.log(10) if config == MELS["speecht5"] else log_mel), length)


class Vocoder(nn.Module):
    """Ours: ConvNeXt blocks correct, bin by bin, the magnitudes that fit a mel; Griffin-Lim finds the phases.

    What it learns is what the bands blur: where the upper harmonics lie, read off the lower ones. Untrained it changes
    nothing, and is Griffin-Lim.
    """

    Config = VocoderConfig

    def __init__(self, config: VocoderConfig):
        super().__init__()
        c = self.config = config
        self.mel = LogMel(c.mel)
        blocks = (ConvNeXtBlock(c.width, c.expansion) for _ in range(c.depth))
        self.body = Chain(Conv1d(c.mel.n_mels, c.width, 7), ChannelNorm(c.width), *blocks, ChannelNorm(c.width))
        self.bins = nn.Conv1d(c.width, c.mel.n_fft // 2 + 1, 1)
        nn.init.zeros_(self.bins.weight)
        nn.init.zeros_(self.bins.bias)

    def spectrum(self, log_mel: Tensor) -> Tensor:
        """(B, M, F) -> magnitudes (B, n_fft / 2 + 1, F)."""
        with torch.no_grad():
            size = mel_to_magnitude(log_mel, self.config.mel, START).clamp_min(1e-6)
        seen = 1 - log_mel / math.log(self.config.mel.floor)  # 0 in silence, about 1 at full scale
        change = self.bins(self.body(2 * seen - 1)).float()
        return size * change.clamp(-8, 4).exp()

    def forward(self, log_mel: Tensor, length: int | None = None) -> Tensor:
        """(B, M, F) -> wav (B, 1, length)."""
        return griffin_lim(self.spectrum(log_mel), self.config.mel, self.config.rounds, length=length)

    def distances(self, wav: Tensor, log_mel: Tensor | None = None) -> dict:
        """How far its magnitudes lie from those of wav (B, 1, N), given their mel or another: bins, compressed, and
        bands, as log."""
        c = self.config.mel
        log_mel = self.mel(wav, c.sr) if log_mel is None else log_mel
        ours, real = self.spectrum(log_mel), stft(wav, c.n_fft, c.hop, c.win, c.padding)
        real = magnitude(real.real, real.imag)
        again = ((self.mel.bank.T @ ours**c.power).clamp_min(c.floor)).log()
        return {
            "bins": (ours.clamp_min(1e-3) ** POWER - real.clamp_min(1e-3) ** POWER).abs().mean(),
            "bands": (again - log_mel).abs().mean(),
        }
