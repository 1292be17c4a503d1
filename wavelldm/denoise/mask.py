"""A small network that cleans a noisy spectrum as it arrives, by a complex mask and a filter over neighbouring frames.

It works alone or guided by the latent diffusion's estimate. It keeps the input's fine structure and phase, which no
latent holds: the multi-stage idea of StoRM (arXiv 2212.11851), in the shape of GTCRN and DPCRN (arXiv 2107.05429):
bands, convolutions over frequency, recurrence over time, skips.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.stft import magnitude, overlap_add
from ..errors import WavelldmError

PAST = 2  # earlier frames that the first convolution sees beside the current one


@dataclass(frozen=True)
class MaskConfig:
    """The sizes of a mask network."""

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
    both_ways: bool = False  # recurrence over time in both directions: for whole recordings, not for streams
    full: bool = False  # the filter covers all bands, not the `low` bins alone


def erb_rate(hertz: float) -> float:
    """The number of a frequency on the scale of equivalent rectangular bandwidths (Glasberg & Moore 1990, eq. 4)."""
    return 21.4 * math.log10(1 + 0.00437 * hertz)


def band_edges(c: MaskConfig) -> list[int]:
    """Edges of the wide bands, in bins: equal steps on the ERB scale, at least one bin each."""
    top, count = c.n_fft // 2 + 1, c.bands - c.low
    first, last = (erb_rate(b * c.sr / c.n_fft) for b in (c.low, top))
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


class MaskState(NamedTuple):
    """What a mask network remembers between two steps, for each item of the batch."""

    features: Tensor  # (B, 3, PAST + frames that wait for those ahead of them, bands)
    spec: Tensor  # (B, taps + waiting, bins), complex
    recurrent: tuple  # of each block (directions, B * bands / 4, width)


class Block(nn.Module):
    """Mix over frequency (convolution and all bands with all), then over time (one GRU shared by all bands, or one for
    each direction)."""

    def __init__(self, channels: int, bands: int, both_ways: bool):
        super().__init__()
        self.near = nn.Conv2d(channels, channels, (1, 5), padding=(0, 2), groups=channels)
        self.far = nn.Linear(bands, bands)
        self.mix = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm((bands, channels))
        self.gru = nn.GRU(channels, channels, bidirectional=both_ways)
        self.out = nn.Linear((1 + both_ways) * channels, channels)
        self.norm_time = nn.LayerNorm((bands, channels))

    def forward(self, x: Tensor, state: Tensor | None, keep: int | None) -> tuple[Tensor, Tensor]:
        """x (T, B, F, C), state (directions, B * F, C) -> the same, and the state after `keep` frames."""
        y = over_bands(self.near, x)
        y = y + self.far.weight @ y + self.far.bias[:, None]
        x = x + self.norm(self.mix(F.silu(y)))
        y, state = self.gru(x.flatten(1, 2), state)  # (T, B * F, directions * C)
        if keep is not None:
            there = y[keep - 1, :, : x.shape[-1]]
            state = torch.stack([there, torch.zeros_like(there)])  # the way back begins anew
        return x + self.norm_time(self.out(y).view(x.shape)), state


class MaskNet(nn.Module):
    """noisy wav (B, 1, N) -> cleaned wav (B, 1, N).

    Frame t sees all frames before it and `ahead` later ones. `initial_state` and `step` work on a spectrum as it
    arrives. With `both_ways` frame t sees all others, and a step takes a whole recording, or says with `keep` how many
    of its frames have been heard far enough.
    """

    Config = MaskConfig
    half = False  # in training: the estimate in bfloat16. Spectra, features and filter stay in 32 bits

    def __init__(self, config: MaskConfig = MaskConfig()):
        super().__init__()
        c = self.config = config
        if c.both_ways and c.latent_dim:
            raise WavelldmError(
                "a mask network with a latent as a guide hears time one way; set both_ways or latent_dim"
            )
        into, back = banks(c)
        self.register_buffer("into", into, persistent=False)  # (bins, bands)
        self.register_buffer("back", back, persistent=False)  # (bands, bins)
        self.register_buffer("window", torch.hann_window(c.n_fft).sqrt(), persistent=False)
        w = c.width
        self.first = nn.Conv2d(3 * (PAST + 1 + c.ahead), w // 2, (1, 5), (1, 2), (0, 2))
        self.second = nn.Conv2d(w // 2, w, (1, 5), (1, 2), (0, 2))
        self.norm = nn.LayerNorm((c.bands // 4, w))
        self.blocks = nn.ModuleList(Block(w, c.bands // 4, c.both_ways) for _ in range(c.blocks))
        self.up = nn.ConvTranspose2d(2 * w, w // 2, (1, 4), (1, 2), (0, 1))
        self.last = nn.ConvTranspose2d(w, 3 + 2 * (c.taps + c.ahead), (1, 4), (1, 2), (0, 1))
        if c.full:
            self.reach = nn.Parameter(torch.ones(c.bands))  # how much the filter counts on each band
        if c.latent_dim:
            self.guide = nn.Linear(c.latent_dim, 128)
            self.guide_out = nn.Linear(128, w * c.bands // 4)
            nn.init.zeros_(self.guide_out.weight)  # a network trained without guidance goes on where it was
            nn.init.zeros_(self.guide_out.bias)

    @property
    def side(self) -> int:
        """Samples that a frame sees on either side of its own hop."""
        return (self.config.n_fft - self.config.hop) // 2

    def frames(self, wav: Tensor) -> Tensor:
        """wav (B, side + T * hop + side) -> complex (B, T, bins)."""
        return torch.fft.rfft(wav.unfold(-1, self.config.n_fft, self.config.hop) * self.window)

    def spectrum(self, wav: Tensor) -> Tensor:
        """wav (B, 1, N) -> complex (B, T, bins), T = ceil(N / hop)."""
        return self.frames(F.pad(wav[:, 0], (self.side, self.side + -wav.shape[-1] % self.config.hop)))

    def overlap(
        self, spec: Tensor, state: tuple[Tensor, Tensor] | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next frames, complex (B, T, bins) -> the T * hop samples (B, T * hop) that no later frame reaches, state.

        The first `side` samples lie before the sound. The state is what the last frames add to the samples to come, and
        the sum of their squared windows. Frames where `valid` (B, T) is False count as if they were not there.
        """
        c, keep = self.config, self.config.n_fft - self.config.hop
        if valid is None:
            valid = torch.ones(spec.shape[:2], dtype=torch.bool, device=spec.device)
        if state is None:
            state = (spec.real.new_zeros(len(spec), keep),) * 2
        size = spec.shape[1] * c.hop
        if size == 0:
            return state[0][:, :0], state
        weight = self.window * valid[..., None]  # (B, T, n_fft)
        frames = torch.fft.irfft(spec, n=c.n_fft) * weight
        wav = overlap_add(frames, c.hop) + F.pad(state[0], (0, size))
        envelope = overlap_add(self.window * weight, c.hop) + F.pad(state[1], (0, size))
        return wav[:, :size] / envelope[:, :size].clamp_min(1e-3), (wav[:, size:], envelope[:, size:])

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
        spec = self.spectrum(F.pad(wav, (0, self.config.ahead * self.config.hop)))
        (cleaned, _), _ = self.step(spec, self.initial_state(len(wav)), latent)
        return self.wave(cleaned, wav.shape[-1])

    def initial_state(self, batch: int) -> MaskState:
        """Before the first frame: silence, and nothing heard of the frames ahead."""
        c, like = self.config, self.into
        return MaskState(
            features=like.new_zeros(batch, 3, PAST, c.bands),
            spec=torch.complex(*2 * [like.new_zeros(batch, c.taps, c.n_fft // 2 + 1)]),
            recurrent=tuple(like.new_zeros(1 + c.both_ways, batch * c.bands // 4, c.width) for _ in self.blocks),
        )

    def step(
        self, spec: Tensor, state: MaskState, latent: Tensor | None = None, keep: int | None = None
    ) -> tuple[tuple[Tensor, Tensor], MaskState]:
        """The next frames, complex (B, any, bins) -> (cleaned, mask), complex (B, T, bins) each, state.

        What comes out is `ahead` frames late: the first step gives that many frames less than it gets, every other as
        many as it gets. A guided network needs `latent` (B, D, T) for the frames that come out. With `keep` only so
        many come out; those after them are heard on the way back alone, and belong into the next step again.

        On the `low` bins, or all, the mask goes on into other frames: a filter of `taps` earlier and `ahead` later
        ones (deep filtering, arXiv 1904.08369, eq. 5), which can tell harmonics from what lies between them and mend
        phases.
        """
        c = self.config
        if (latent is None) != (c.latent_dim == 0):
            raise WavelldmError(
                "this mask network " + ("needs" if latent is None else "takes no") + " latent as a guide"
            )
        seen = torch.cat([state.spec, spec], dim=1)  # (B, taps + T + ahead, bins)
        features = torch.cat([state.features, self.features(spec)], dim=2)  # (B, 3, PAST + T + ahead, bands)
        count = seen.shape[1] - c.taps - c.ahead  # T
        if count <= 0:
            return (spec[:, :0], spec[:, :0]), MaskState(features, seen, state.recurrent)
        half = self.half and torch.is_grad_enabled()
        with torch.autocast(spec.device.type, torch.bfloat16) if half else nullcontext():
            estimate, recurrent = self.estimate(features, latent, state.recurrent, keep)
        cleaned, mask = self.filtered(estimate.float(), seen, count)
        if keep is None:
            return (cleaned, mask), MaskState(features[:, :, count:], seen[:, count:], recurrent)
        state = MaskState(features[:, :, keep : keep + PAST], seen[:, keep : keep + c.taps], recurrent)
        return (cleaned[:, :keep], mask[:, :keep]), state

    def filtered(self, estimate: Tensor, seen: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Mask and filter on the frames `seen`, complex (B, taps + T + ahead, bins) -> cleaned, mask (B, T, bins)."""
        c = self.config
        size, real, imag = estimate[:3] @ self.back  # (B, T, bins) each
        size = torch.sigmoid(size)
        mask = torch.complex(size * (1 + real), size * imag)
        cleaned = seen[:, c.taps : c.taps + count] * mask
        if c.taps + c.ahead:
            weights = (self.reach * estimate[3:]) @ self.back if c.full else estimate[3:, ..., : c.low]
            bins = weights.shape[-1]
            parts = weights.split([c.taps, c.taps, c.ahead, c.ahead])  # (taps or ahead, B, T, bins)
            earlier, later = torch.complex(*parts[:2]), torch.complex(*parts[2:])
            others = sum(w * seen[:, c.taps - i :][:, :count, :bins] for i, w in enumerate(earlier, 1))
            others = others + sum(w * seen[:, c.taps + i :][:, :count, :bins] for i, w in enumerate(later, 1))
            cleaned = torch.cat([cleaned[..., :bins] + size[..., :bins] * others, cleaned[..., bins:]], dim=-1)
        return cleaned, mask

    def estimate(
        self, features: Tensor, latent: Tensor | None, recurrent: tuple, keep: int | None = None
    ) -> tuple[Tensor, tuple]:
        """What mask and filter are made of, (3 + 2 * (taps + ahead), B, T, bands), and the recurrent state.

        `features` (B, 3, PAST + T + ahead, bands); `latent` (B, D, T) or None.
        """
        sees = PAST + 1 + self.config.ahead  # frames
        count = features.shape[2] - sees + 1
        x = torch.cat([features[:, :, i : i + count] for i in range(sees)], dim=1)  # (B, 3 * sees, T, bands)
        one = F.silu(over_bands(self.first, x.permute(2, 0, 3, 1)))  # (T, B, bands / 2, w / 2)
        x = two = self.norm(over_bands(self.second, one))  # (T, B, bands / 4, w)
        if latent is not None:
            guide = self.guide_out(F.silu(self.guide(latent.permute(2, 0, 1))))  # (T, B, w * bands / 4)
            x = x + guide.unflatten(-1, (self.config.width, -1)).transpose(2, 3)
        states = []
        for block, state in zip(self.blocks, recurrent):
            x, state = block(x, state, keep)
            states.append(state)
        x = F.silu(over_bands(self.up, torch.cat([x, two], dim=-1)))
        x = over_bands(self.last, torch.cat([x, one], dim=-1))  # (T, B, bands, 3 + 2 * (taps + ahead))
        return x.permute(3, 1, 0, 2), tuple(states)
