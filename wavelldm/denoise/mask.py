"""A small network that cleans a noisy spectrum as it arrives, by a complex mask and a filter over neighbouring frames, alone or guided by the latent diffusion's estimate.

It keeps the input's fine structure and phase, which no latent holds: the multi-stage idea of StoRM (arXiv 2212.11851),
in the shape of GTCRN and DPCRN (arXiv 2107.05429): bands, convolutions over frequency, recurrence over time, skips.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.stft import magnitude, overlap_add
from ..errors import WavelldmError


@dataclass(frozen=True)
class MaskConfig:
    """The network that cleans a noisy spectrum by a complex mask and a filter over frames (masknet.py)."""

    sr: int = 16_000
    n_fft: int = 512
    hop: int = 256  # frame t has its middle where latent frame t of the codec has
    low: int = 65  # bins kept one by one (up to 2 kHz)
    ahead: int = 1  # frames to come that the network looks at, and the filter reaches forward to
    taps: int = 4  # earlier frames that the filter of these bins reaches back to; 0: a mask alone
    bands: int = 128  # these, and wider ones above
    width: int = 96  # channels
    blocks: int = 6
    power: float = 0.3  # compression of the magnitudes it sees
    latent_dim: int = 0  # of the guiding latent; 0: none


def band_edges(c: MaskConfig) -> list:
    """Edges of the wide bands, in bins: equal steps on the ERB scale (Glasberg & Moore 1990, eq. 4), at least one bin each."""
    top, count = c.n_fft // 2 + 1, c.bands - c.low
    erb = lambda hertz: 21.4 * math.log10(1 + 0.00437 * hertz)
    first, last = (erb(b * c.sr / c.n_fft) for b in (c.low, top))
    edges = [c.low]
    for i in range(1, count + 1):
        hertz = (10 ** ((first + (last - first) * i / count) / 21.4) - 1) / 0.00437
        edges.append(min(top - count + i, max(edges[-1] + 1, round(hertz * c.n_fft / c.sr))))
    return edges


def banks(c: MaskConfig) -> tuple[Tensor, Tensor]:
    """Mean over each band (bins, bands), and each band's value to all its bins (bands, bins)."""
    edges = list(range(c.low)) + band_edges(c)
    member = torch.zeros(c.n_fft // 2 + 1, c.bands)
    for band, (a, b) in enumerate(zip(edges, edges[1:])):
        member[a:b, band] = 1
    return member / member.sum(0), member.T.contiguous()


def over_bands(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution over the bands of x (T, B, F, C). Channels lie last in memory, where all else here is fastest."""
    y = conv(x.flatten(0, 1)[:, None].permute(0, 3, 1, 2))  # (T * B, C, 1, F)
    return y.permute(0, 2, 3, 1)[:, 0].unflatten(0, x.shape[:2])


class Block(nn.Module):
    """Mix over frequency (convolution and all bands with all), then over time (one GRU shared by all bands)."""

    def __init__(self, channels: int, bands: int):
        super().__init__()
        self.near = nn.Conv2d(channels, channels, (1, 5), padding=(0, 2), groups=channels)
        self.far = nn.Linear(bands, bands)
        self.mix = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm((bands, channels))
        self.gru = nn.GRU(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.norm_time = nn.LayerNorm((bands, channels))

    def forward(self, x: Tensor, state: Tensor | None):
        """x (T, B, F, C), state (1, B * F, C)."""
        y = over_bands(self.near, x)
        y = y + self.far.weight @ y + self.far.bias[:, None]
        x = x + self.norm(self.mix(F.silu(y)))
        y, state = self.gru(x.flatten(1, 2), state)  # (T, B * F, C)
        return x + self.norm_time(self.out(y).view(x.shape)), state


class MaskNet(nn.Module):
    """noisy wav (B, 1, N) -> cleaned wav (B, 1, N). Frame t sees `ahead` later frames and no more; so the delay is one window and these."""

    Config = MaskConfig

    def __init__(self, config: MaskConfig = MaskConfig()):
        super().__init__()
        c = self.config = config
        into, back = banks(c)
        self.register_buffer("into", into, persistent=False)  # (bins, bands)
        self.register_buffer("back", back, persistent=False)  # (bands, bins)
        self.register_buffer("window", torch.hann_window(c.n_fft).sqrt(), persistent=False)
        w = c.width
        self.first = nn.Conv2d(3 * (3 + c.ahead), w // 2, (1, 5), (1, 2), (0, 2))
        self.second = nn.Conv2d(w // 2, w, (1, 5), (1, 2), (0, 2))
        self.norm = nn.LayerNorm((c.bands // 4, w))
        self.blocks = nn.ModuleList(Block(w, c.bands // 4) for _ in range(c.blocks))
        self.up = nn.ConvTranspose2d(2 * w, w // 2, (1, 4), (1, 2), (0, 1))
        self.last = nn.ConvTranspose2d(w, 3 + 2 * (c.taps + c.ahead), (1, 4), (1, 2), (0, 1))
        if c.latent_dim:
            self.guide = nn.Linear(c.latent_dim, 128)
            self.guide_out = nn.Linear(128, w * c.bands // 4)
            nn.init.zeros_(self.guide_out.weight)  # a network trained without guidance goes on where it was
            nn.init.zeros_(self.guide_out.bias)

    @property
    def side(self) -> int:
        return (self.config.n_fft - self.config.hop) // 2  # samples that a frame sees on either side of its own hop

    def frames(self, wav: Tensor) -> Tensor:
        """wav (B, side + T * hop + side) -> complex (B, T, bins)."""
        return torch.fft.rfft(wav.unfold(-1, self.config.n_fft, self.config.hop) * self.window)

    def spectrum(self, wav: Tensor) -> Tensor:
        """wav (B, 1, N) -> complex (B, T, bins), T = ceil(N / hop)."""
        return self.frames(F.pad(wav[:, 0], (self.side, self.side + -wav.shape[-1] % self.config.hop)))

    def overlap(self, spec: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        """The next frames, complex (B, T, bins) -> the T * hop samples (B, T * hop) that no later frame reaches, state: what
        the last ones add to the samples to come, and their squared windows. The first `side` samples lie before the sound."""
        c, keep = self.config, self.config.n_fft - self.config.hop
        wav, envelope = state or (spec.real.new_zeros(len(spec), keep), spec.real.new_zeros(keep))
        size = spec.shape[1] * c.hop
        frames = torch.fft.irfft(spec, n=c.n_fft) * self.window
        wav = overlap_add(frames, c.hop) + F.pad(wav, (0, size))
        envelope = overlap_add(self.window.square().expand(spec.shape[1], -1), c.hop) + F.pad(envelope, (0, size))
        return wav[:, :size] / envelope[:size].clamp_min(1e-3), (wav[:, size:], envelope[size:])

    def wave(self, spec: Tensor, length: int) -> Tensor:
        """complex (B, T, bins) -> (B, 1, length). Squared windows sum to one but for the outer half windows."""
        wav, (tail, envelope) = self.overlap(spec)
        wav = torch.cat([wav, tail / envelope.clamp_min(1e-3)], dim=1)
        return wav[:, None, self.side : self.side + length]

    def features(self, spec: Tensor) -> Tensor:
        """complex (B, T, bins) -> (B, 3, T, bands): compressed magnitude, real and imaginary part."""
        power = self.config.power
        size = magnitude(spec.real, spec.imag)
        scale = size.clamp_min(1e-4) ** (power - 1)
        return torch.stack([size * scale, spec.real * scale, spec.imag * scale], dim=1) @ self.into

    def forward(self, wav: Tensor, latent: Tensor | None = None) -> Tensor:
        """`latent`: the guide (B, D, ceil(N / hop)), scaled to deviation 1, for a network built with latent_dim."""
        cleaned, _, _ = self.clean(self.spectrum(F.pad(wav, (0, self.config.ahead * self.config.hop))), latent)
        return self.wave(cleaned, wav.shape[-1])

    def clean(self, spec: Tensor, latent: Tensor | None = None, state: list | None = None):
        """complex (B, T + ahead, bins) [, latent (B, D, T)] -> the first T cleaned, the mask on each frame itself, complex (B, T, bins),
        state. The frames ahead are only looked at; give them again with the next ones.

        On the `low` bins the mask goes on into other frames: a filter of `taps` earlier and `ahead` later ones (deep filtering,
        arXiv 1904.08369, eq. 5), which can tell harmonics from what lies between them and mend phases.
        """
        c = self.config
        state = list(state or [None] * (len(self.blocks) + 2))
        if (latent is None) != (c.latent_dim == 0):
            raise WavelldmError(
                "this mask network " + ("needs" if latent is None else "takes no") + " latent as a guide"
            )
        x, state[1:] = self.estimate(spec, latent, state[1:])  # (3 + 2 * (taps + ahead), B, T, bands)
        size, real, imag = x[:3] @ self.back  # (B, T, bins) each
        size, t = torch.sigmoid(size), x.shape[2]
        mask = torch.complex(size * (1 + real), size * imag)
        out = spec[:, :t] * mask
        if c.taps + c.ahead:
            past = spec.new_zeros(len(spec), c.taps, c.low) if state[0] is None else state[0]
            longer = torch.cat([past, spec[..., : c.low]], dim=1)  # (B, taps + T + ahead, low)
            state[0] = longer[:, t : t + c.taps]
            weights = x[3:, ..., : c.low].split([2 * c.taps, 2 * c.ahead])
            earlier, later = (
                torch.complex(w[: len(w) // 2], w[len(w) // 2 :]) for w in weights
            )  # (taps or ahead, B, T, low)
            others = sum(w * longer[:, c.taps - i : c.taps - i + t] for i, w in enumerate(earlier, 1))
            others = others + sum(w * longer[:, c.taps + i : c.taps + i + t] for i, w in enumerate(later, 1))
            out = torch.cat([out[..., : c.low] + size[..., : c.low] * others, out[..., c.low :]], dim=-1)
        return out, mask, state

    def estimate(self, spec: Tensor, latent: Tensor | None, state: list):
        """complex (B, T + ahead, bins) [, latent (B, D, T)] -> what mask and filter are made of, (3 + 2 * (taps + ahead), B, T, bands), state."""
        state, x = list(state), self.features(spec)  # (B, 3, T + ahead, bands)
        past = x.new_zeros(x.shape[0], 3, 2, x.shape[3]) if state[0] is None else state[0]
        longer = torch.cat([past, x], dim=2)
        t = x.shape[2] - self.config.ahead
        state[0] = longer[:, :, t : t + 2]
        x = torch.cat(
            [longer[:, :, i : i + t] for i in range(3 + self.config.ahead)], dim=1
        )  # (B, 9 or more, T, bands)
        one = F.silu(over_bands(self.first, x.permute(2, 0, 3, 1)))  # (T, B, bands / 2, w / 2)
        x = two = self.norm(over_bands(self.second, one))  # (T, B, bands / 4, w)
        if latent is not None:
            guide = self.guide_out(F.silu(self.guide(latent.permute(2, 0, 1))))  # (T, B, w * bands / 4)
            x = x + guide.unflatten(-1, (self.config.width, -1)).transpose(2, 3)
        for i, block in enumerate(self.blocks):
            x, state[i + 1] = block(x, state[i + 1])
        x = F.silu(over_bands(self.up, torch.cat([x, two], dim=-1)))
        x = over_bands(self.last, torch.cat([x, one], dim=-1))  # (T, B, bands, 3 + 2 * (taps + ahead))
        return x.permute(3, 1, 0, 2), state
