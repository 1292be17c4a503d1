"""The codec's losses and its critics: multi-scale mel and STFT distances, MPD, MSD, least squares and feature matching.

MPD and MSD follow HiFi-GAN (arXiv 2010.05646, section 2.3), the losses its equations 1 to 4; the weights are
WaveLLDM's."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ..audio import pitch
from ..audio.mel import LogMel, MelConfig
from ..audio.stft import POWER, magnitude, stft
from ..metrics.differentiable import disturbance, estoi_distance
from .model import Codec
from .pulse import TABLE

LOSS_WEIGHTS = {"adversarial": 1.0, "features": 2.0, "mel": 65.0, "stft": 20.0}


class PeriodCritic(nn.Module):
    """Every p-th sample side by side: 2-D convolutions over (time / p, p) see what repeats with that period."""

    def __init__(self, period: int, width: int):
        super().__init__()
        self.period = period
        sizes = [1, width, 4 * width, 16 * width, 32 * width]
        strided = [nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0)) for a, b in zip(sizes, sizes[1:])]
        self.layers = nn.ModuleList(
            weight_norm(c) for c in [*strided, nn.Conv2d(sizes[-1], sizes[-1], (5, 1), 1, (2, 0))]
        )
        self.out = weight_norm(nn.Conv2d(sizes[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, wav: Tensor) -> list[Tensor]:
        wav = F.pad(wav, (0, -wav.shape[-1] % self.period))
        x = wav.unflatten(-1, (-1, self.period))  # (B, 1, N / p, p)
        return _through(self.layers, self.out, x)


class ScaleCritic(nn.Module):
    """Grouped 1-D convolutions with long kernels on the waveform, or on an averaged, slower version of it."""

    def __init__(self, shrink: int, width: int):
        super().__init__()
        self.shrink = shrink
        w = width
        plan = [  # in, out, kernel, stride, groups
            (1, 4 * w, 15, 1, 1),
            (4 * w, 4 * w, 41, 2, 4),
            (4 * w, 8 * w, 41, 2, 16),
            (8 * w, 16 * w, 41, 4, 16),
            (16 * w, 32 * w, 41, 4, 16),
            (32 * w, 32 * w, 5, 1, 1),
        ]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(a, b, k, s, k // 2, groups=min(g, a))) for a, b, k, s, g in plan
        )
        self.out = weight_norm(nn.Conv1d(32 * w, 1, 3, 1, 1))

    def forward(self, wav: Tensor) -> list[Tensor]:
        if self.shrink > 1:
            wav = F.avg_pool1d(wav, 2 * self.shrink, self.shrink, self.shrink)
        return _through(self.layers, self.out, wav)


def _through(layers: nn.ModuleList, out: nn.Module, x: Tensor) -> list[Tensor]:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), 0.1)
        features.append(x)
    return [*features, out(x)]  # the last one is the verdict


class Critics(nn.Module):
    """MPD and MSD together: wav (B, 1, N) -> for every critic its features, the last of them the verdict.

    `width` 32 is the size in the papers (MPD up to 1024 channels); 8 trains in minutes.
    """

    def __init__(self, width: int = 32, periods: tuple = (2, 3, 5, 7, 11), scales: tuple = (1, 2, 4)):
        super().__init__()
        self.critics = nn.ModuleList(
            [PeriodCritic(p, width) for p in periods] + [ScaleCritic(s, width) for s in scales]
        )

    def forward(self, wav: Tensor) -> list[list[Tensor]]:
        return [critic(wav) for critic in self.critics]


def critic_loss(real: list, fake: list) -> Tensor:
    """Least squares: verdicts on real sound towards 1, on decoded towards 0 (HiFi-GAN eq. 1); mean over critics."""
    return sum((1 - r[-1]).square().mean() + f[-1].square().mean() for r, f in zip(real, fake)) / len(real)


def adversarial_loss(fake: list) -> Tensor:
    """The decoder wants its verdicts at 1 (HiFi-GAN eq. 2)."""
    return sum((1 - f[-1]).square().mean() for f in fake) / len(fake)


def feature_loss(real: list, fake: list, mean: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """L1 between what the critics see inside, real and decoded (HiFi-GAN eq. 4), as a share of the real features' size.

    Without that division the loss would count the critics' scale, which drifts while they learn.
    `mean`: of all processes that train together.
    """
    pairs = [(r.detach(), f) for rs, fs in zip(real, fake) for r, f in zip(rs[:-1], fs[:-1])]
    return sum((r - f).abs().mean() / mean(r.abs().mean()).clamp_min(1e-6) for r, f in pairs) / len(pairs)


class MelLoss(nn.Module):
    """L1 of log-mels, averaged over window lengths from short (onsets) to long (harmonics)."""

    def __init__(self, sr: int, windows: tuple = (128, 256, 512, 1024, 2048)):
        super().__init__()
        self.sr = sr
        self.mels = nn.ModuleList(
            LogMel(MelConfig(sr, w, w, w // 4, min(w // 8, 128), 0.0, sr / 2, padding="center")) for w in windows
        )

    def forward(self, decoded: Tensor, wav: Tensor) -> Tensor:
        return sum((mel(decoded, self.sr) - mel(wav, self.sr)).abs().mean() for mel in self.mels) / len(self.mels)


def stft_loss(decoded: Tensor, wav: Tensor, windows: tuple = (256, 512, 1024)) -> Tensor:
    """Multi-resolution STFT loss (arXiv 1910.11480, eqs. 3 to 5): spectral convergence plus L1 of log magnitudes."""
    total = 0.0
    for w in windows:
        a, b = (stft(x, w, w // 4, w, "center") for x in (decoded, wav))  # (B, F, T)
        a, b = magnitude(a.real, a.imag), magnitude(b.real, b.imag)
        apart, size = ((x.square().sum((1, 2))) for x in (a - b, b))
        convergence = apart.clamp_min(1e-12).sqrt() / size.clamp_min(1e-4).sqrt()
        log = (a.clamp_min(1e-4).log() - b.clamp_min(1e-4).log()).abs().mean()
        total = total + convergence.mean() + log
    return total / len(windows)


NEAR = 1 / 24  # octaves: a pitch this near the right one is used as it is, so that the envelopes learn to fit it
PULSE_WEIGHTS = {"mel": 1.0, "loud": 10.0, "disturbance": 0.2, "estoi": 0.4, "pitch": 0.2}


def pulse_decode(codec: Codec, z_q: Tensor, wav: Tensor, number: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What the pulse decoder makes of z_q (B, D, T), to be trained against wav (B, 1, N): its sound (B, 1, N), and the
    loss of its pitch.

    That is a cross-entropy against the tracked pitch; in pauses the lowest pitch, whose harmonics lie too close to
    sound like a tone. The pulses take the network's pitch where it is nearly right, else the tracked one. `number`
    (T,): each frame's place in the noise, by default anywhere."""
    head, hop = codec.decoder, codec.config.mel.hop
    path = pitch.track(pitch.scores(wav, codec.sr, hop))  # (B, T)
    voiced = path < pitch.COUNT
    path = torch.where(voiced, path, 0)
    logits, gains = head.parts(codec.upsampler(z_q))
    with torch.autocast(wav.device.type, enabled=False):
        right = pitch.candidates(wav.device)[path]
        guess = head.f0(logits, gains)
        far = voiced & ((guess / right).log2().abs() > NEAR)
        f0 = torch.where(far, right, guess).detach()
        if number is None:
            number = torch.randint(TABLE, (len(wav), 1), device=wav.device) + torch.arange(
                f0.shape[1], device=wav.device
            )
        decoded = head.join(head.frames(f0, head.turns(f0), gains, number))[..., : wav.shape[-1]]
        near = torch.exp(
            -0.5 * (torch.arange(pitch.COUNT, device=wav.device)[:, None] - path[:, None]).square()
        )  # (B, S, T)
        missed = -(near / near.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1)
    return decoded, missed.mean()


def listening_distances(decoded: Tensor, wav: Tensor, sr: int, mels: Iterable[LogMel]) -> dict:
    """(B, 1, N) each -> `mel`: L1 of log-mels in several windows (`mels`, see MelLoss). `loud`: the same of compressed
    mels. `disturbance`, `estoi`: see `metrics.differentiable`."""
    with torch.autocast(wav.device.type, enabled=False):
        pairs = [(mel(decoded, sr), mel(wav, sr)) for mel in mels]
        return {
            "mel": sum((a - b).abs().mean() for a, b in pairs) / len(pairs),
            "loud": sum(((POWER * a).exp() - (POWER * b).exp()).abs().mean() for a, b in pairs) / len(pairs),
            "disturbance": disturbance(decoded, wav, sr).mean(),
            "estoi": estoi_distance(decoded, wav, sr).mean(),
        }


def pulse_distances_of(
    codec: Codec, z_q: Tensor, wav: Tensor, mels: Iterable[LogMel], number: Tensor | None = None
) -> tuple[Tensor, dict]:
    """What the pulse decoder makes of z_q (B, D, T), (B, 1, N), and its five distances of PULSE_WEIGHTS from wav
    (B, 1, N): see `pulse_decode` and `listening_distances`."""
    decoded, missed = pulse_decode(codec, z_q, wav, number)
    return decoded, {"pitch": missed, **listening_distances(decoded, wav, codec.sr, mels)}


def pulse_distances(
    codec: Codec, z_q: Tensor, wav: Tensor, mels: Iterable[LogMel], number: Tensor | None = None
) -> dict:
    """The distances alone."""
    return pulse_distances_of(codec, z_q, wav, mels, number)[1]
