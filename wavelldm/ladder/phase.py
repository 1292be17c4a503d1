"""What no mel can give back: the phase, and with it the waveform. A bound, and an experiment that runs into it."""

import math

import torch
from torch import Tensor

from ..audio.stft import istft, stft
from ..errors import WavelldmError


def best_snr(rho: float) -> float:
    """The highest SNR in dB that any gain g reaches with g * y at correlation rho: -10 log10(1 - rho^2).

    |s - g y|^2 is least at g = <s, y> / |y|^2, where it is |s|^2 (1 - rho^2)."""
    if not -1 <= rho <= 1:
        raise WavelldmError(f"a correlation lies between -1 and 1, not at {rho}")
    return math.inf if abs(rho) == 1 else -10 * math.log10(1 - rho**2)


def needed_correlation(snr: float) -> float:
    """The inverse: without this much correlation no gain reaches that SNR. +5 dB: 0.83; +10 dB: 0.95."""
    if snr < 0:
        raise WavelldmError("below 0 dB silence does better, whatever the correlation; ask for 0 dB or more")
    return math.sqrt(1 - 10 ** (-snr / 10))


def best_gain(wav: Tensor, other: Tensor) -> Tensor:
    """The gain at which `other` (..., N) comes nearest to `wav`."""
    return (wav * other).sum(-1, keepdim=True) / other.square().sum(-1, keepdim=True).clamp_min(1e-20)


def forget_phase(wav: Tensor, seed: int = 0, n_fft: int = 1024, hop: int = 256) -> Tensor:
    """wav (B, 1, N) -> the same magnitudes under random phases, brought to the same energy: (B, 1, N).

    Its SNR against `wav` is -10 log10(2 - 2 rho) with a rho that is 0 on average: -3 dB, and silence would have 0 dB."""
    spectrum = stft(wav, n_fft, hop, n_fft, "center")  # (B, F, T)
    turn = 2 * math.pi * torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(seed)).to(wav)
    other = istft(spectrum * torch.polar(torch.ones_like(turn), turn), n_fft, hop, n_fft, "center", wav.shape[-1])[
        :, None
    ]
    return other * (wav.square().sum(-1, keepdim=True) / other.square().sum(-1, keepdim=True).clamp_min(1e-20)).sqrt()


def experiment(wav: Tensor, draws: int = 20) -> dict:
    """wav (1, 1, N) -> what `draws` random phases give, on average: SNR as they are and at the best gain (dB), |rho|, and the bound.

    `bound` is `best_snr` of each draw's rho; it equals `at_best_gain`, to rounding."""
    rows = []
    for seed in range(draws):
        other = forget_phase(wav, seed)
        energy = wav.square().sum().double()
        rho = float(
            (wav * other).sum().double() / energy
        )  # both have this energy; the mean of speech is next to nothing
        error = lambda y: float(10 * (energy / (wav - y).square().sum().double()).log10())
        rows.append(
            {
                "snr": error(other),
                "at_best_gain": error(best_gain(wav, other) * other),
                "rho": abs(rho),
                "bound": best_snr(rho),
            }
        )
    return {name: sum(row[name] for row in rows) / draws for name in rows[0]}
