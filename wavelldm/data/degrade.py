"""Degradations of speech: noise, reverberation, lost packets, narrow bands, clipping, coarse quantisation.

Everything works on batches wav (B, 1, N) on any device. Parameters are drawn per item from a torch.Generator on the
CPU, so that a seed gives the same result on every machine. Nothing here scales a clean signal and its noisy version
differently.
"""

import math
from dataclasses import dataclass

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from ..audio.levels import active_power, limit_together, mix_at_snr
from ..errors import DataError

EARLY = 0.05  # seconds: reflections up to here belong to the target, as they help intelligibility
MEASURED = 0.5  # share of rooms that are measured ones, where there are any
SPEEDS = (0.88, 1.18)  # of a varied voice: two semitones down to three up
TILT = 3 / 8  # the largest coefficient of the filter that stands for a microphone
RING = 256  # samples at either end of a varied voice that are cut away


@dataclass(frozen=True)
class Degradation:
    """A recipe: for each degradation its probability per item, and the range its strength is drawn from (uniformly)."""

    noise: float = 1.0
    snr: tuple | None = (-5.0, 20.0)  # dB on active speech; None adds the noise as it comes (recorded pairs)
    faint: float = 0.0  # of the noises: hardly there at all
    faint_snr: tuple = (30.0, 60.0)
    narrow: float = 0.0  # speech that has a narrow band from the start, as on the telephone: the target has it too
    narrow_cutoff: tuple = (3_400.0, 7_500.0)
    reverb: float = 0.0
    rt60: tuple = (0.15, 0.9)  # seconds until the room has decayed by 60 dB
    direct_db: tuple = (-3.0, 9.0)  # direct path over the echoes: how near the speaker is
    level: float = 0.0
    level_db: tuple = (-36.0, -16.0)  # active level of the target, noisy and target turned alike
    clip: float = 0.0
    clip_db: tuple = (3.0, 15.0)  # how far the ceiling lies under the peak
    band: float = 0.0
    cutoff: tuple = (2_000.0, 7_000.0)  # Hz: 4,000 is what 8 kHz sampling leaves
    mulaw: float = 0.0  # 8 bits per sample, as in ISDN telephony
    dropout: float = 0.0
    dropout_count: tuple = (1, 7)  # gaps per crop
    dropout_seconds: tuple = (0.05, 0.45)  # length of each


RECIPES = {
    "noise": Degradation(),
    "wavelldm": Degradation(dropout=0.5, band=0.5, cutoff=(4_000.0, 8_000.0)),  # the three of arXiv 2508.21153
    "everything": Degradation(reverb=0.4, level=1.0, clip=0.1, band=0.2, mulaw=0.05, dropout=0.2),
    "recorded": Degradation(snr=None),  # recorded pairs stay as they are
}


def _draw(count: int, bounds: tuple, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    low, high = bounds
    return (low + (high - low) * torch.rand(count, generator=generator)).to(device)  # (count,)


def _convolve(wav: Tensor, response: Tensor, n_fft: int, shift: Tensor) -> Tensor:
    """Linear convolution by FFT, from sample `shift` on: (B, 1, N), (B, 1, R), (B,) -> (B, 1, N)."""
    turn = torch.arange(n_fft // 2 + 1, device=wav.device) * shift[:, None, None] % n_fft  # integers: exact phases
    spectrum = torch.fft.rfft(wav, n_fft) * torch.fft.rfft(response, n_fft)
    spectrum = spectrum * torch.polar(torch.ones_like(turn, dtype=wav.dtype), turn * (2 * math.pi / n_fft))
    return torch.fft.irfft(spectrum, n_fft)[..., : wav.shape[-1]]


def room_response(rt60: Tensor, direct_db: Tensor, sr: int, generator: torch.Generator) -> Tensor:
    """Synthetic room responses (B, 1, R): direct path at sample 0 and, direct_db (B,) below it in energy, the echoes.

    They are Gaussian noise under an exponential that falls by 60 dB in rt60 (B,) seconds (Polack's model), thinned at
    first, since the number of echoes per second grows with the square of time.
    """
    length = max(2, math.ceil(float(rt60.max()) * sr))
    t = torch.arange(length) / sr  # (R,)
    density = (t / 0.03).square().clamp(0.02, 1.0)  # dense from 30 ms on
    shape = (len(rt60), 1, length)
    present = torch.rand(shape, generator=generator) < density
    echoes = torch.randn(shape, generator=generator) * present / density.sqrt()
    echoes = echoes.to(rt60.device) * 10 ** (-3 * t.to(rt60.device) / rt60[:, None, None])
    echoes[..., : max(1, round(0.002 * sr))] = 0  # the nearest wall is 35 cm away
    energy = echoes.square().sum(-1, keepdim=True)
    response = echoes / energy.clamp(min=1e-12).sqrt() * 10 ** (-direct_db[:, None, None] / 20)
    response[..., 0] = 1.0
    return response


def reverberate(wav: Tensor, responses: Tensor, sr: int) -> tuple[Tensor, Tensor]:
    """Convolve wav (B, 1, N) with room responses (B, 1, R) -> (reverberant, target), both aligned with wav.

    The target is the speech with the direct path and the reflections of its first 50 ms. The delay of the direct path
    (the largest sample of the response) is removed from both; both have the same gain, at which the early part has unit
    energy.
    """
    if not len(wav):  # an FFT of nothing is an error
        return wav, wav
    peak = responses.abs().argmax(-1)  # (B, 1)
    index = torch.arange(responses.shape[-1], device=wav.device)
    early = responses * (index < peak[..., None] + round(EARLY * sr))
    scale = early.square().sum(-1, keepdim=True).clamp(min=1e-20).rsqrt()
    n_fft = next_fast_len(wav.shape[-1] + responses.shape[-1], real=True)
    return tuple(_convolve(wav, r * scale, n_fft, peak[:, 0]) for r in (responses, early))


def _some_measured(rooms: Tensor, measured: Tensor, generator: torch.Generator) -> Tensor:
    """Replace a share of the synthetic rooms (B, 1, R) by measured ones (K, any), drawn at random."""
    length = max(rooms.shape[-1], measured.shape[-1])
    drawn = measured[torch.randint(len(measured), (len(rooms),), generator=generator)][:, None].to(rooms.device)
    rooms, drawn = (torch.nn.functional.pad(x, (0, length - x.shape[-1])) for x in (rooms, drawn))
    replaced = torch.rand(len(rooms), generator=generator) < MEASURED
    return torch.where(replaced[:, None, None].to(rooms.device), drawn, rooms)


def band_limit(wav: Tensor, sr: int, cutoff: Tensor) -> Tensor:
    """Remove what lies above cutoff (B,) Hz, without delay: flat to 0.9 cutoff, nothing from cutoff on."""
    if not len(wav):
        return wav
    n = wav.shape[-1]
    n_fft = next_fast_len(n + sr // 10, real=True)  # room for the filter to ring out
    hz = torch.arange(n_fft // 2 + 1, device=wav.device) * (sr / n_fft)
    position = ((hz / cutoff[:, None, None] - 0.9) / 0.1).clamp(0, 1)  # (B, 1, bins)
    return torch.fft.irfft(torch.fft.rfft(wav, n_fft) * (0.5 + 0.5 * torch.cos(math.pi * position)), n_fft)[..., :n]


def vary(wav: Tensor, count: int, tilt: Tensor) -> Tensor:
    """wav (C, N) -> (C, count): played in the time of `count` samples, so that pitch and formants move, and through
    a filter with two zeros and two poles, whose coefficients `tilt` (4,) lie between -TILT and TILT: so RNNoise (arXiv
    1709.08243) draws its microphones."""
    spectrum = torch.fft.rfft(wav)  # (C, bins)
    angle = torch.linspace(0, math.pi, spectrum.shape[-1], device=wav.device)
    once, twice = torch.exp(-1j * angle), torch.exp(-2j * angle)  # z^-1 and z^-2
    a, b, c, d = tilt
    shaped = spectrum * (1 + a * once + b * twice) / (1 + c * once + d * twice)
    return torch.fft.irfft(shaped, count) * (count / wav.shape[-1])


def clip(wav: Tensor, below_peak_db: Tensor, hard: Tensor) -> Tensor:
    """Clip at a ceiling below_peak_db (B,) under the peak: a flat cut where hard (B,) is True, else tanh."""
    ceiling = wav.abs().amax(-1, keepdim=True).clamp(min=1e-9) * 10 ** (-below_peak_db[:, None, None] / 20)
    return torch.where(hard[:, None, None], wav.clamp(-ceiling, ceiling), ceiling * torch.tanh(wav / ceiling))


def mulaw(wav: Tensor, bits: int = 8) -> Tensor:
    """Quantise on a logarithmic scale, mu = 2**bits - 1, as the continuous law of ITU-T G.711 does."""
    mu = 2**bits - 1
    squeezed = wav.sign() * torch.log1p(mu * wav.abs().clamp(max=1)) / math.log1p(mu)
    steps = (squeezed * (mu // 2)).round() / (mu // 2)
    return steps.sign() * torch.expm1(steps.abs() * math.log1p(mu)) / mu


def dropouts(
    wav: Tensor, sr: int, generator: torch.Generator, count: tuple = (1, 7), seconds: tuple = (0.05, 0.45)
) -> tuple[Tensor, Tensor]:
    """Set stretches to zero, as lost packets do -> (wav with zeros, mask (B, 1, N), True where lost)."""
    mask = gaps(len(wav), wav.shape[-1], sr, generator, count, seconds).to(wav.device)
    return wav.masked_fill(mask, 0.0), mask


def gaps(
    b: int, n: int, sr: int, generator: torch.Generator, count: tuple = (1, 7), seconds: tuple = (0.05, 0.45)
) -> Tensor:
    """Where sound is lost, in b items of n samples (b, 1, n).

    Gaps never touch: at least 10 ms of sound lies between them. Those that would take the loss past half of a short
    crop are left out (the first is shortened instead).
    """
    spacing, most = round(0.01 * sr), int(count[1])
    wanted = torch.randint(int(count[0]), most + 1, (b, 1), generator=generator)
    lengths = (_draw(b * most, seconds, generator).reshape(b, most) * sr).round().long()
    lengths[:, 0].clamp_(max=n // 2)
    kept = (torch.arange(most) < wanted) & ((lengths + spacing).cumsum(-1) <= n // 2)
    kept[:, 0] = True
    lengths = lengths * kept
    room = n - lengths.sum(-1, keepdim=True) - spacing * (kept.sum(-1, keepdim=True) - 1)  # (B, 1) samples to share out
    # evenly random gaps: sorted uniform points cut the free room, and each dropout begins at one of them
    points = torch.rand(b, most, generator=generator).masked_fill(~kept, 2.0).sort(-1).values  # unkept ones last
    starts = (points.clamp(max=1) * room).long() + (lengths + spacing * kept).cumsum(-1) - lengths - spacing * kept
    starts = starts.clamp(max=n)
    edges = torch.zeros(b, n + 1, dtype=torch.long)
    edges.scatter_add_(1, starts, kept.long()).scatter_add_(1, (starts + lengths).clamp(max=n), -kept.long())
    return edges.cumsum(-1)[:, None, :n] > 0


def degrade(
    clean: Tensor,
    noise: Tensor,
    recipe: Degradation,
    sr: int,
    generator: torch.Generator,
    rirs: Tensor | None = None,
    share: tuple[int, int] = (0, 1),
) -> tuple[Tensor, Tensor]:
    """One training pair from clean (B, 1, N) and noise (B, 1, N) -> (noisy, target), both (B, 1, N).

    Order, as in reality: room, noise at an SNR against the reverberant speech, level, clipping, band limit, coding,
    lost packets. The target differs from clean only by the early reflections, the level and a narrow band. With
    measured responses `rirs` (K, R), half of the rooms are drawn from these and the others are synthetic. `share`
    (i, W): these are items i, i + W, ... of a batch of B * W, and come out as they do in it.
    """
    if clean.shape != noise.shape or clean.dim() != 3:
        raise DataError(f"clean and noise are alike (batch, 1, samples), not {(*clean.shape,)} and {(*noise.shape,)}")
    device, (part, parts) = clean.device, share
    whole = len(clean) * parts

    def chosen(probability: float) -> tuple[Tensor, Tensor]:
        """Which items get this degradation; and, for all of the whole batch that get it, which of them are ours."""
        found = (torch.rand(whole, generator=generator) < probability).nonzero()[:, 0]
        ours = found % parts == part
        return (found[ours] // parts).to(device), ours

    def draw(ours: Tensor, bounds: tuple) -> Tensor:
        return _draw(len(ours), bounds, generator)[ours].to(device)

    clean = clean.clone()
    if recipe.narrow:
        at, ours = chosen(recipe.narrow)
        if len(ours):
            clean[at] = band_limit(clean[at], sr, draw(ours, recipe.narrow_cutoff))
    target = clean.clone()
    speech = clean.clone()
    at, ours = chosen(recipe.reverb)
    if len(ours):
        rt60 = _draw(len(ours), recipe.rt60, generator, device)
        rooms = room_response(rt60, _draw(len(ours), recipe.direct_db, generator, device), sr, generator)  # (K, 1, R)
        if rirs is not None:
            rooms = _some_measured(rooms, rirs, generator)
        speech[at], target[at] = reverberate(clean[at], rooms[ours.to(device)], sr)

    noisy = speech.clone()
    at, ours = chosen(recipe.noise)
    if len(ours) and recipe.snr is None:
        noisy[at] = speech[at] + noise[at]
    elif len(ours):
        snr = draw(ours, recipe.snr)
        if recipe.faint:
            few = draw(ours, (0.0, 1.0)) < recipe.faint
            snr = torch.where(few, draw(ours, recipe.faint_snr), snr)
        noisy[at] = mix_at_snr(speech[at], noise[at], snr, sr)

    at, ours = chosen(recipe.level)
    if len(ours):
        power = active_power(target[at], sr)[..., None]  # (K, 1, 1)
        wanted = 10 ** (draw(ours, recipe.level_db)[:, None, None] / 10)
        gain = torch.where(power > 0, (wanted / power.clamp(min=1e-20)).sqrt(), 1.0)
        noisy[at], target[at] = noisy[at] * gain, target[at] * gain
    noisy, target = limit_together(noisy, target)

    at, ours = chosen(recipe.clip)
    if len(ours):
        hard = draw(ours, (0.0, 1.0)) < 0.5
        noisy[at] = clip(noisy[at], draw(ours, recipe.clip_db), hard)
    at, ours = chosen(recipe.band)
    if len(ours):
        noisy[at] = band_limit(noisy[at], sr, draw(ours, recipe.cutoff))
    at, _ = chosen(recipe.mulaw)
    noisy[at] = mulaw(noisy[at])
    at, ours = chosen(recipe.dropout)
    if len(ours):
        lost = gaps(len(ours), noisy.shape[-1], sr, generator, recipe.dropout_count, recipe.dropout_seconds)
        noisy[at] = noisy[at].masked_fill(lost[ours].to(device), 0.0)
    return limit_together(noisy, target)
