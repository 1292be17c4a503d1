"""Speech level without pauses (ITU-T P.56), and mixing at an exact signal-to-noise ratio.

Levels are mean squares in dB: 0 dB is a square wave at full scale (ITU-T's dBov), a full-scale sine has -3 dB.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..light.levels import FRAME, HANGOVER, MARGIN_DB, SILENCE_DB
from .files import as_float


def decibels(power: Tensor) -> Tensor:
    """10 log10(power); -inf for silence."""
    return 10 * torch.log10(power)


def _frames(wav: Tensor, sr: int) -> tuple[Tensor, int]:
    """The mean magnitude of each 10 ms, smoothed over 50 ms: (R, N) -> (R, T), and the samples per frame."""
    size = max(1, round(FRAME * sr))
    whole = F.pad(wav.abs(), (0, -wav.shape[-1] % size))  # (R, T * size)
    envelope = F.avg_pool1d(whole[:, None], size)  # (R, 1, T)
    return F.avg_pool1d(envelope, 5, 1, 2, count_include_pad=False)[:, 0], size


def active_mask(wav: Tensor, sr: int) -> Tensor:
    """True where there is sound rather than a pause: (..., N) -> bool (..., N), all False for silence.

    After ITU-T P.56, method B, on 10 ms frames instead of single samples: a frame is active if the envelope reached a
    threshold within the last 200 ms. The threshold lies 15.9 dB under the active level that results from it. This fixed
    point is found by iteration from below: a higher threshold leaves fewer frames, hence a higher level.
    """
    flat = as_float(wav).reshape(-1, wav.shape[-1]).float()  # (R, N)
    envelope, size = _frames(flat, sr)
    held = round(HANGOVER / FRAME)
    envelope = F.max_pool1d(F.pad(envelope[:, None], (held, 0)), held + 1, 1)[:, 0]  # (R, T), with hangover
    energy = flat.square().sum(-1, keepdim=True) / size  # (R, 1), in units of frames
    floor = 10 ** (SILENCE_DB / 20)
    threshold = torch.full_like(energy, floor)
    for _ in range(30):
        active = (envelope >= threshold).sum(-1, keepdim=True).clamp(min=1)  # (R, 1)
        higher = (energy / active).sqrt() * 10 ** (-MARGIN_DB / 20)
        if torch.equal(threshold, higher.clamp(min=floor)):
            break
        threshold = higher.clamp(min=floor)
    mask = (envelope >= threshold).repeat_interleave(size, -1)[:, : flat.shape[-1]]  # (R, N)
    return mask.reshape(wav.shape)


def active_power(wav: Tensor, sr: int) -> Tensor:
    """The mean square over the active samples: (..., N) -> (...), 0 for silence."""
    wav = as_float(wav)
    mask = active_mask(wav, sr)
    return (wav.square() * mask).sum(-1) / mask.sum(-1).clamp(min=1)


def active_level(wav: Tensor, sr: int) -> Tensor:
    """The active level in dB: (..., N) -> (...), -inf for silence."""
    return decibels(active_power(wav, sr))


def mix_at_snr(clean: Tensor, noise: Tensor, snr_db: float | Tensor, sr: int) -> Tensor:
    """clean + noise (..., N), where only the noise is scaled so that the SNR is exactly snr_db.

    SNR = 10 log10(active speech power / active noise power), each over its own active frames: pauses of the speaker
    do not make the noise louder, and a single bark in ten seconds of silence has this SNR while it lasts. snr_db is a
    number or one per signal (...). If either is silent, the noise keeps its level.
    """
    clean, noise = as_float(clean), as_float(noise)
    speech, noise_power = active_power(clean, sr), active_power(noise, sr)  # (...)
    snr = torch.as_tensor(snr_db, dtype=clean.dtype, device=clean.device)
    if snr.dim():
        snr = snr.reshape(speech.shape)
    gain = (speech / noise_power.clamp(min=1e-20) * 10 ** (-snr / 10)).sqrt()
    gain = torch.where((speech > 0) & (noise_power > 0), gain, torch.ones_like(gain))
    return clean + noise * gain[..., None]


def limit_together(*wavs: Tensor, peak: float = 0.999) -> tuple[Tensor, ...]:
    """Scale all of them (..., N) down by one common gain per signal, just enough that none exceeds the peak."""
    wavs = tuple(map(as_float, wavs))
    loudest = torch.stack([wav.abs().amax(-1, keepdim=True) for wav in wavs]).amax(0)  # (..., 1)
    gain = (peak / loudest.clamp(min=1e-20)).clamp(max=1.0)
    return tuple(wav * gain for wav in wavs)
