"""Why a mel spectrogram cannot give back the waveform: it drops the phase. A bound on the SNR, and an experiment that
meets it.
"""

import math

import torch
from torch import Tensor

from ..audio.stft import istft, stft
from ..errors import WavelldmError


def best_snr(rho: float) -> float:
    """The highest SNR in dB that any gain g reaches with g * y at correlation rho: -10 log10(1 - rho^2).

    |s - g y|^2 is least at g = <s, y> / |y|^2, where it is |s|^2 (1 - rho^2).
    """
    if not -1 <= rho <= 1:
        raise WavelldmError(f"a correlation lies between -1 and 1, not at {rho}")
    return math.inf if abs(rho) == 1 else -10 * math.log10(1 - rho**2)


def needed_correlation(snr: float) -> float:
    """The inverse: with less correlation than this no gain reaches that SNR. +5 dB: 0.83; +10 dB: 0.95."""
    if snr < 0:
        raise WavelldmError("a gain of 0 already gives 0 dB, whatever the correlation; ask for 0 dB or more")
    return math.sqrt(1 - 10 ** (-snr / 10))


def best_gain(wav: Tensor, other: Tensor) -> Tensor:
    """The gain at which `other` (..., N) comes nearest to `wav`."""
    return (wav * other).sum(-1, keepdim=True) / other.square().sum(-1, keepdim=True).clamp_min(1e-20)


def forget_phase(wav: Tensor, seed: int = 0, n_fft: int = 1024, hop: int = 256) -> Tensor:
    """wav (B, 1, N) -> the same magnitudes with random phases, scaled to the same energy: (B, 1, N).

    Its SNR against `wav` is -10 log10(2 - 2 rho), and rho is 0 on average: -3 dB, where silence has 0 dB.
    """
    spectrum = stft(wav, n_fft, hop, n_fft, "center")  # (B, F, T)
    turn = 2 * math.pi * torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(seed)).to(wav)
    spectrum = spectrum * torch.polar(torch.ones_like(turn), turn)
    other = istft(spectrum, n_fft, hop, n_fft, "center", wav.shape[-1])[:, None]
    return other * (wav.square().sum(-1, keepdim=True) / other.square().sum(-1, keepdim=True).clamp_min(1e-20)).sqrt()


def _snr(wav: Tensor, other: Tensor) -> float:
    return float(10 * (wav.square().sum().double() / (wav - other).square().sum().double()).log10())


def experiment(wav: Tensor, draws: int = 20) -> dict[str, float]:
    """wav (1, 1, N) -> means over `draws` random phases: SNR without and with the best gain (dB), |rho|, and the bound.

    `bound` is `best_snr` of each draw's rho; up to rounding it equals `at_best_gain`.
    """
    rows = []
    for seed in range(draws):
        other = forget_phase(wav, seed)
        rho = float((wav * other).sum().double() / wav.square().sum().double())  # both have this energy, and mean 0
        scaled = best_gain(wav, other) * other
        rows.append(
            {"snr": _snr(wav, other), "at_best_gain": _snr(wav, scaled), "rho": abs(rho), "bound": best_snr(rho)}
        )
    return {name: sum(row[name] for row in rows) / draws for name in rows[0]}
