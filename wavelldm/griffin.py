"""From a spectrogram without phase to sound: mel -> magnitude (non-negative least squares) -> wav (Griffin-Lim)."""

import math

import torch
from torch import Tensor
from tqdm import tqdm

from .config import MelConfig
from .mel import bank_of
from .stft import istft, magnitude, stft


def scaled(z: Tensor, size: Tensor) -> Tensor:
    """Complex times real, as two real products: half the work of what `*` makes of it."""
    return torch.view_as_complex(torch.view_as_real(z) * size[..., None])


def griffin_lim(
    spectrum: Tensor,  # (B, n_fft // 2 + 1, F)
    config: MelConfig,
    iterations: int = 32,
    momentum: float = 0.99,
    seed: int = 0,
    length: int | None = None,
    start: Tensor | None = None,  # complex, of size one: (B, n_fft // 2 + 1, F)
) -> Tensor:
    """Magnitudes -> wav (B, 1, length) whose STFT comes near them.

    Griffin & Lim (1984): in turn take the wanted magnitudes, and the spectrum of a real sound. Perraudin, Balazs &
    Sondergaard (2013), algorithm 2: step past the second by `momentum` times the last change (0: the plain method).
    Begins with the phases of `start`, or random ones drawn from `seed`; gradients flow to the magnitudes.
    """
    c, unit = config, start
    if unit is None:
        generator = torch.Generator().manual_seed(seed)  # on the CPU: the same start on any device
        phase = 2 * math.pi * torch.rand(spectrum.shape, generator=generator).to(spectrum)
        unit = torch.polar(torch.ones_like(phase), phase)  # (B, n_fft // 2 + 1, F), complex
    spectrum = spectrum.transpose(1, 2).contiguous().transpose(1, 2)  # frame after frame in memory, as `stft` makes them
    wanted, previous = scaled(unit, spectrum), 0
    for _ in tqdm(range(iterations), desc="Griffin-Lim", delay=2, leave=False):
        wav = istft(wanted, c.n_fft, c.hop, c.win, c.padding, length)  # (B, length)
        current = stft(wav, c.n_fft, c.hop, c.win, c.padding)
        ahead = torch.add(current, current - previous, alpha=momentum)
        wanted = scaled(ahead, spectrum / magnitude(ahead.real, ahead.imag))
        previous = current
    return istft(wanted, c.n_fft, c.hop, c.win, c.padding, length)[:, None]  # (B, 1, length)


def mel_to_magnitude(log_mel: Tensor, config: MelConfig, iterations: int = 50) -> Tensor:
    """Log-mel (B, M, F) -> the non-negative magnitudes (B, n_fft // 2 + 1, F) of that mel.

    A mel has fewer numbers than a spectrum, so many fit: start at the smallest one (pseudo-inverse), then
    multiplicative updates for non-negative least squares (Lee & Seung 2001, eq. 4), which keep every bin positive.
    """
    bank = bank_of(config).to(log_mel)  # (M, n_fft // 2 + 1)
    mel = log_mel.exp()
    spectrum = (torch.linalg.pinv(bank) @ mel).clamp_min(1e-5 * mel.mean((1, 2), keepdim=True))
    target = bank.T @ mel
    for _ in range(iterations):
        spectrum = spectrum * target / (bank.T @ (bank @ spectrum)).clamp_min(1e-20)
    return spectrum ** (1 / config.power)


def mel_to_wav(
    log_mel: Tensor,  # (B, M, F)
    config: MelConfig,
    iterations: int = 32,
    momentum: float = 0.99,
    seed: int = 0,
    length: int | None = None,
) -> Tensor:
    """Log-mel (B, M, F) -> wav (B, 1, length): what a mel is worth without a vocoder."""
    return griffin_lim(mel_to_magnitude(log_mel, config), config, iterations, momentum, seed, length)
