"""The mel front end: triangular filter banks, log-mel, normalisations with exact inverses, smoothing.

Shapes: wav (B, 1, N), mel (B, M, F) with M bands and F frames; a log-mel is the natural logarithm of a mel.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import MelConfig
from .errors import AudioError, WavelldmError
from .stft import ConvSTFT, magnitude, stft

# Slaney's scale (Auditory Toolbox, 1998): linear up to 1000 Hz = 15 mel, then 27 mel for every factor of 6.4.
SLANEY_HZ_PER_MEL = 200 / 3
SLANEY_CORNER = 15.0
SLANEY_LOG_STEP = math.log(6.4) / 27


def hz_to_mel(hz: float, scale: str = "slaney") -> float:
    """Frequency -> mel, on Slaney's scale or on HTK's (O'Shaughnessy 1987)."""
    if scale == "htk":
        return 2595 * math.log10(1 + hz / 700)
    if hz < 1000:
        return hz / SLANEY_HZ_PER_MEL
    return SLANEY_CORNER + math.log(hz / 1000) / SLANEY_LOG_STEP


def mel_to_hz(mel: Tensor, scale: str = "slaney") -> Tensor:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return torch.where(mel < SLANEY_CORNER, mel * SLANEY_HZ_PER_MEL, 1000 * torch.exp((mel - SLANEY_CORNER) * SLANEY_LOG_STEP))


def mel_bank(
    sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float, scale: str = "slaney", norm: str = "slaney"
) -> Tensor:
    """Triangles with corners equally spaced in mel: (n_mels, n_fft // 2 + 1), of equal area or (norm="none") equal height."""
    if scale not in ("slaney", "htk") or norm not in ("slaney", "none"):
        raise WavelldmError(f"no mel bank has scale '{scale}' and norm '{norm}'; scale is slaney or htk, norm slaney or none")
    if not 0 <= fmin < fmax <= sr / 2:
        raise WavelldmError(f"a mel bank from {fmin:g} to {fmax:g} Hz does not fit into 0 to {sr / 2:g} Hz; change fmin or fmax")
    bins = torch.linspace(0, sr / 2, n_fft // 2 + 1, dtype=torch.float64)  # (F,)
    mels = torch.linspace(hz_to_mel(fmin, scale), hz_to_mel(fmax, scale), n_mels + 2, dtype=torch.float64)
    low, peak, high = mel_to_hz(mels, scale).unfold(0, 3, 1).T[..., None]  # (n_mels, 1) each
    bank = torch.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)).clamp_min(0)  # (n_mels, F)
    if norm == "slaney":
        bank = bank * 2 / (high - low)
    return bank.float()


def bank_of(config: MelConfig) -> Tensor:
    return mel_bank(config.sr, config.n_fft, config.n_mels, config.fmin, config.fmax, config.scale, config.norm)


class LogMel(nn.Module):
    """wav (B, 1, N) -> log(clamp(bank @ |STFT|**power, floor)) (B, M, F); conv=True builds the STFT as a convolution, to export."""

    def __init__(self, config: MelConfig, conv: bool = False):
        super().__init__()
        self.config = config
        self.register_buffer("bank", bank_of(config).T.contiguous(), persistent=False)  # (n_fft // 2 + 1, M)
        self.conv = ConvSTFT(config.n_fft, config.hop, config.win, config.padding) if conv else None

    def forward(self, wav: Tensor, sr: int) -> Tensor:
        c = self.config
        if sr != c.sr:
            raise AudioError(f"this front end takes audio at {c.sr} Hz, not {sr} Hz; resample it first (wavelldm.audio.resample)")
        if wav.ndim != 3 or wav.shape[1] != 1:
            raise AudioError(f"the front end takes wav (batch, 1, samples), not {tuple(wav.shape)}; put channels into the batch")
        if self.conv is None:
            spec = stft(wav, c.n_fft, c.hop, c.win, c.padding)  # (B, n_fft // 2 + 1, F)
            real, imag = spec.real, spec.imag
        else:
            real, imag = self.conv(wav).chunk(2, dim=1)
        spectrum = magnitude(real, imag)
        if c.power != 1:
            spectrum = spectrum**c.power
        # In this order the frames of all clips are the rows of one matrix product.
        mel = spectrum.transpose(1, 2) @ self.bank  # (B, F, M)
        return mel.clamp_min(c.floor).log().transpose(1, 2)  # (B, M, F)


@dataclass(frozen=True)
class Normalisation:
    """y = (x - shift) / scale, then tanh(y) if `squash`: plain numbers, to be stored with the weights they were used for.

    Nothing is clipped on the way in, so `inverse(forward(x))` is x up to rounding. With `squash`, rounding grows with the
    distance from `shift`: below 1e-4 for the data it was fitted to (2.5 * scale), and beyond 7 * scale all is lost.
    """

    shift: float = 0.0
    scale: float = 1.0
    squash: bool = False

    def forward(self, mel: Tensor) -> Tensor:
        y = (mel - self.shift) / self.scale
        return y.tanh() if self.squash else y

    def inverse(self, y: Tensor) -> Tensor:
        if self.squash:
            y = y.clamp(-1 + 1e-6, 1 - 1e-6).atanh()  # a network may well answer exactly 1
        return y * self.scale + self.shift


def fit_normalisation(kind: str, log_mel: Tensor, power: float = 1.0) -> Normalisation:
    """The normalisation of that kind for log-mels like these (training data, never test data).

    log: as it is. db: 20 log10 of the magnitude (10 log10 if the mel is of power 2). zscore: mean 0, standard deviation 1.
    percentile: the 1st becomes -1, the 99th +1, and what lies outside stays outside. tanh: into (-1, 1), extremes at 0.987.
    """
    if kind == "log":
        return Normalisation()
    if kind == "db":
        return Normalisation(0.0, power * math.log(10) / 20)
    x = log_mel.detach().double().flatten()
    if kind == "zscore":
        shift, scale = x.mean(), x.std()
    elif kind == "percentile":
        low, high = (x.kthvalue(1 + round(q * (len(x) - 1))).values for q in (0.01, 0.99))
        shift, scale = (low + high) / 2, (high - low) / 2
    elif kind == "tanh":
        low, high = x.aminmax()
        shift, scale = (low + high) / 2, (high - low) / 2 / 2.5
    else:
        raise WavelldmError(f"there is no normalisation '{kind}'; choose log, db, zscore, percentile or tanh")
    return Normalisation(shift.item(), max(scale.item(), 1e-6), kind == "tanh")  # silence has no spread to divide by


def smooth(mel: Tensor, time: float = 1.0, frequency: float = 0.5) -> Tensor:
    """Blur a mel (B, M, F) with a Gaussian of `time` frames and `frequency` bands (standard deviations; 0: not at all)."""
    for sigma, axis in ((time, 2), (frequency, 1)):
        if sigma > 0:
            radius = math.ceil(3 * sigma)
            x = torch.arange(-radius, radius + 1, dtype=mel.dtype, device=mel.device)
            kernel = torch.softmax(-x.square() / (2 * sigma**2), 0)  # sums to 1: a constant stays what it is
            rows = mel.movedim(axis, -1)
            padded = F.pad(rows, (radius, radius), mode="replicate")
            mel = (padded.unfold(-1, 2 * radius + 1, 1) @ kernel).movedim(-1, axis)
    return mel
