"""The source-filter decoder: a pulse train at the pitch and noise, each shaped by its own spectral envelope.

The model that DDSP (arXiv 2001.04643) and neural source-filter models (arXiv 1904.12088) put behind a network.
Harmonics with phases that fit, which a network is slow to learn, are built in; the network gives pitch and envelopes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio import pitch
from ..audio.stft import POWER, hann, overlap_add
from ..nn.layers import Chain, ChannelNorm, Conv1d, ConvNeXtBlock

BANDS = 80  # points of an envelope, evenly spaced on the mel scale
TABLE = 256  # frames of noise, which repeat
TONELESS = 7  # of the candidates, from the lowest on (60 to 65 Hz): where there is no pitch, one of them is taken
VOICE = 150.0, 1000.0  # Hz; where the pulses stand out from the noise here, there is a voice
CLEAR, WEIGHT = 0.9, 6.0  # how far they stand out, in nats, before it counts, and how much each further nat counts


def mel_interpolation(bands: int, bins: int, sr: int) -> Tensor:
    """(bands, bins): linear interpolation from points at equal distances on the mel scale to the bins of a spectrum."""
    mel = torch.log1p(torch.linspace(0, sr / 2, bins) / 700)
    place = mel / mel[-1] * (bands - 1)
    return (1 - (place - torch.arange(bands)[:, None]).abs()).clamp_min(0)


def mel_points_between(low: float, high: float, sr: int) -> Tensor:
    """Numbers of the points of an envelope between two frequencies in Hz."""
    hertz = [700 * math.expm1(i / (BANDS - 1) * math.log1p(sr / 2 / 700)) for i in range(BANDS)]
    return torch.tensor([i for i, f in enumerate(hertz) if low < f < high])


def phase_type(device: torch.device) -> torch.dtype:
    """Phases add up over a whole recording, so they take double precision, which Apple's GPUs do not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def pulses(f0: Tensor, turns: Tensor, sr: int, n: int) -> Tensor:
    """Frames (B, T, n) of all harmonics of f0 (B, T) Hz below sr / 2, as cosines that meet `turns` (B, T) in the
    middle; power 1.

    The sum over harmonics is Dirichlet's kernel, sin((K + 1/2) x) / (2 sin(x / 2)) - 1/2.
    """
    count = (sr / 2 / f0).floor()[..., None]  # K
    angle = (
        turns.to(phase_type(f0.device))[..., None] + f0[..., None] * (torch.arange(n, device=f0.device) - n // 2) / sr
    )
    angle = ((angle - angle.round()) * (2 * math.pi)).to(f0.dtype)  # between -pi and pi
    below = 2 * (angle / 2).sin()
    peak = below.abs() < 1e-4
    ratio = ((count + 0.5) * angle).sin() / torch.where(peak, 1.0, below)
    return (torch.where(peak, count + 0.5, ratio) - 0.5) * (2 / count).sqrt()


class Correction(nn.Module):
    """Two ConvNeXt blocks that hear the spectra of pulses and noise, and turn and scale each bin.

    What envelopes of 80 points cannot say is learnt: single harmonics, and how far their phases are from a pulse. At
    first it changes nothing."""

    def __init__(self, width: int, bins: int, causal: bool = False):
        super().__init__()
        self.heard = Conv1d(2 * bins, width, 1)
        blocks = (ConvNeXtBlock(width, 2, causal) for _ in range(2))
        self.body = Chain(ChannelNorm(width), *blocks, ChannelNorm(width))
        self.out = Conv1d(width, 2 * bins, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, real: Tensor, imag: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """A spectrum (B, T, bins) and what the decoder tells (B, width, T) -> the corrected spectrum."""
        return self._corrected(real, imag, self.body(self._heard(real, imag, told)))

    def step(self, real: Tensor, imag: Tensor, told: Tensor, state: list) -> tuple[tuple[Tensor, Tensor], list]:
        """The next frames; `state`: that of the body."""
        y, state = self.body.step(self._heard(real, imag, told), state)
        return self._corrected(real, imag, y), state

    def _heard(self, real: Tensor, imag: Tensor, told: Tensor) -> Tensor:
        flat = (real.square() + imag.square()).clamp_min(1e-6) ** -0.35  # its magnitudes to the power 0.3
        return self.heard(torch.cat([real * flat, imag * flat], dim=2).transpose(1, 2)) + told  # (B, width, T)

    def _corrected(self, real: Tensor, imag: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.out(y).transpose(1, 2).chunk(2, dim=2)  # each bin times 1 + a + bi
        return real + real * a - imag * b, imag + real * b + imag * a


class PulseDecoder(nn.Module):
    """ConvNeXt blocks at the frame rate, then pitch and two envelopes per frame; (B, D, T) -> wav (B, 1, T * hop).

    Frame t is the windowed spectrum of pulses and noise times their envelopes, two hops long; frames overlap by half.
    With a `correction`, so many channels tell it what to change of these spectra; they come after the envelopes.
    """

    def __init__(
        self,
        dim: int,
        width: int = 256,
        depth: int = 6,
        expansion: int = 4,
        sr: int = 16_000,
        hop: int = 256,
        causal: bool = False,
        correction: int = 0,
    ):
        super().__init__()
        self.sr, self.hop, self.n_fft, self.delay = sr, hop, 2 * hop, hop // 2
        blocks = (ConvNeXtBlock(width, expansion, causal) for _ in range(depth))
        self.body = Chain(Conv1d(dim, width, 3, causal=causal), ChannelNorm(width), *blocks, ChannelNorm(width))
        self.pitch = nn.Conv1d(width, pitch.COUNT, 1)
        self.gains = nn.Conv1d(width, 2 * BANDS + correction, 1)
        nn.init.constant_(self.gains.bias[: 2 * BANDS], -4.0)
        self.correction = Correction(correction, self.n_fft // 2 + 1, causal) if correction else None
        bank = mel_interpolation(BANDS, self.n_fft // 2 + 1, sr)
        self.register_buffer("interpolation", bank, persistent=False)  # (bands, bins)
        self.register_buffer("voice", mel_points_between(*VOICE, sr), persistent=False)  # numbers of bands
        self.register_buffer("window", hann(self.n_fft, self.n_fft).sqrt(), persistent=False)
        table = torch.randn(TABLE * hop, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", torch.cat([table, table[: self.n_fft]]), persistent=False)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, T) -> logits of the pitch (B, S, T), gains (B, G, T): the logarithms of two envelopes, 80 points each,
        and below them what the correction is told."""
        return self._parts(self.body(x))

    def _parts(self, y: Tensor) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(y.dtype, torch.float32)  # half precision is too coarse for a pitch
        return self.pitch(y).to(wide), self.gains(y).to(wide)

    def outline(self, x: Tensor) -> Tensor:
        """(B, D, T) -> its envelopes, compressed, and how likely each pitch is (B, 2 * bands + S, T)."""
        logits, gains = self.parts(x)
        return torch.cat([(POWER * gains[:, : 2 * BANDS]).exp(), logits.softmax(1)], dim=1)

    def f0(self, logits: Tensor, gains: Tensor) -> Tensor:
        """(B, S, T), (B, G, T) -> Hz (B, T): the likeliest pitch; the envelopes have a say in whether there is one.
        A vowel whose pulses ran at the lowest pitch would sound hoarse."""
        envelopes = gains[:, : 2 * BANDS].chunk(2, dim=1)
        pulses, noise = (torch.logsumexp(2 * x[:, self.voice], dim=1) / 2 for x in envelopes)  # (B, T)
        less = WEIGHT * (pulses - noise - CLEAR).clamp_min(0)
        return pitch.hertz(torch.cat([logits[:, :TONELESS] - less[:, None], logits[:, TONELESS:]], dim=1))

    def turns(self, f0: Tensor, before: Tensor | None = None) -> Tensor:
        """Phase in the middle of each frame, in turns (B, T); `before`: pitch and phase of the frame before,
        (B, 2)."""
        first = f0[:, :1] if before is None else before[:, :1]
        steps = (torch.cat([first, f0[:, :-1]], dim=1) + f0).to(phase_type(f0.device)) * (self.hop / 2 / self.sr)
        if before is None:
            steps[:, 0] = 0
        else:
            steps[:, 0] += before[:, 1]
        return steps.cumsum(1) % 1.0

    def frames(self, f0: Tensor, turns: Tensor, gains: Tensor, number: Tensor) -> Tensor:
        """(B, T), (B, T), (B, G, T) and each frame's place in the noise (T,) or (B, T) -> windowed frames (B, T,
        n_fft)."""
        spectrum = self.spectrum(f0, turns, gains, number)
        if self.correction is not None:
            spectrum = torch.complex(*self.correction(spectrum.real, spectrum.imag, gains[:, 2 * BANDS :]))
        return torch.fft.irfft(spectrum, n=self.n_fft) * self.window

    def spectrum(self, f0: Tensor, turns: Tensor, gains: Tensor, number: Tensor) -> Tensor:
        """The same -> spectra of pulses and noise (B, T, bins), before they are corrected."""
        start = number % TABLE * self.hop
        noise = self.noise.unfold(0, self.n_fft, 1)[start].expand(*f0.shape, -1)
        sources = torch.stack([pulses(f0, turns, self.sr, self.n_fft), noise], dim=1)  # (B, 2, T, n_fft)
        return (torch.fft.rfft(sources * self.window) * self.envelopes(gains)).sum(1)

    def envelopes(self, gains: Tensor) -> Tensor:
        """(B, G, T) -> magnitudes of each bin, for pulses and noise (B, 2, T, bins)."""
        points = gains[:, : 2 * BANDS].unflatten(1, (2, BANDS)).transpose(2, 3)
        return (points @ self.interpolation).clamp(max=4.0).exp()

    def join(self, frames: Tensor) -> Tensor:
        """Windowed frames (B, T, n_fft) -> wav (B, 1, T * hop). Only one frame reaches the outermost half hops."""
        side = self.delay
        total = overlap_add(frames, self.hop)
        seen = overlap_add(self.window.square().expand(frames.shape[1], -1), self.hop)
        return (total / seen.clamp_min(1e-2))[:, None, side : side + frames.shape[1] * self.hop]

    def forward(self, x: Tensor) -> Tensor:
        return self.window_step(x, 0, x.shape[-1], self.initial_window_state(x.shape[0]))[0]

    def initial_window_state(self, batch: int) -> tuple[int, Tensor]:
        """Of the first new frame of a window: its number in the recording, and its phase in turns (B,)."""
        return 0, self.window.new_zeros(batch, dtype=phase_type(self.window.device))

    def window_step(
        self, x: Tensor, before: int, count: int, state: tuple[int, Tensor]
    ) -> tuple[Tensor, tuple[int, Tensor]]:
        """A window (B, D, T) of a longer latent -> its wav (B, 1, T * hop), state for the window whose new frames come
        next.

        Frames `before` to `before + count` are new, the others overlap. Phases add up along a recording, so windows
        that overlap must agree on them; the state carries them on."""
        number, phase = state
        logits, gains = self.parts(x)
        f0 = self.f0(logits, gains)
        turns = self.turns(f0)
        turns = (turns + (phase - turns[:, before])[:, None]) % 1.0
        where = torch.arange(f0.shape[1], device=f0.device) + (number - before)
        wav = self.join(self.frames(f0, turns, gains, where))
        following = min(before + count, turns.shape[1] - 1)  # at the end of the recording nothing follows
        return wav, (number + count, turns[:, following])

    def initial_state(self, batch: int) -> tuple:
        """Those of body and correction, pitch and phase of the last frame, its number, its tail, samples to be
        dropped."""
        correction = None if self.correction is None else self.correction.body.initial_state(batch)
        return (self.body.initial_state(batch), correction), None, 0, self.window.new_zeros(batch, self.hop), self.delay

    def step(self, x: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        (body, correction), before, number, tail, drop = state
        y, body = self.body.step(x, body)
        out, count = tail[:, :0], y.shape[-1]
        if count:
            logits, gains = self._parts(y)
            f0 = self.f0(logits, gains)
            turns = self.turns(f0, before)
            spectrum = self.spectrum(f0, turns, gains, torch.arange(count, device=x.device) + number)
            if self.correction is not None:
                told = gains[:, 2 * BANDS :]
                parts, correction = self.correction.step(spectrum.real, spectrum.imag, told, correction)
                spectrum = torch.complex(*parts)
            frames = torch.fft.irfft(spectrum, n=self.n_fft) * self.window
            total = overlap_add(frames, self.hop) + F.pad(tail, (0, count * self.hop))
            out, tail = total[:, : count * self.hop], total[:, count * self.hop :]
            if number == 0:  # the first half hop has no frame before it; what lies before that is dropped
                out = torch.cat(
                    [out[:, : self.hop] / self.window[: self.hop].square().clamp_min(1e-2), out[:, self.hop :]], dim=1
                )
            before, number = torch.stack([f0[:, -1].to(turns), turns[:, -1]], dim=1), number + count
        return out[:, None, drop:], ((body, correction), before, number, tail, max(0, drop - out.shape[-1]))

    def finish(self, state: tuple) -> Tensor:
        """The half hop that only the last frame reaches, (B, 1, delay); (B, 1, 0) if there was no frame."""
        _, _, number, tail, _ = state
        out = tail / self.window[self.hop :].square().clamp_min(1e-2)
        return out[:, None, : self.delay if number else 0]
