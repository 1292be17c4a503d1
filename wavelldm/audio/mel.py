"""The mel front end: triangular filter banks, log-mel, normalisations with exact inverses, smoothing.

Shapes: wav (B, 1, N), mel (B, M, F) with M bands and F frames; a log-mel is the natural logarithm of a mel.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AudioError, WavelldmError
from ..progress import progress_bar
from .stft import ConvSTFT, frame, hann, istft, magnitude, stft


@dataclass(frozen=True)
class MelConfig:
    """A log-mel front end: log(clamp(bank @ |STFT|**power, floor))."""

    sr: int = 16_000
    n_fft: int = 1024
    win: int = 1024
    hop: int = 256
    n_mels: int = 100
    fmin: float = 0.0
    fmax: float = 8_000.0
    scale: str = "slaney"  # or "htk"
    norm: str = "slaney"  # triangles of equal area, or "none": of equal height
    power: float = 1.0  # 1: magnitude, 2: power
    floor: float = 1e-5
    padding: str = "same"  # "center": 1 + N // hop frames; "same": N / hop; "causal": N / hop, no look-ahead

    @property
    def frame_rate(self) -> float:
        return self.sr / self.hop  # frames per second


# Front ends by name: of AudioLDM2's VAE, of the vocoder published with SpeechT5, of this project's codec, and of
# WaveLLDM.
MELS = {
    "audioldm2": MelConfig(hop=160, n_mels=64, padding="center"),
    "speecht5": MelConfig(n_mels=80, fmin=80.0, fmax=7_600.0, floor=1e-10, padding="center"),
    "base16k": MelConfig(),
    "wavelldm44k": MelConfig(sr=44_100, n_fft=2048, win=2048, hop=512, n_mels=160, fmax=22_050.0),
}

# Slaney's scale (Auditory Toolbox, 1998): linear up to 1000 Hz = 15 mel, then 27 mel for every factor of 6.4.
SLANEY_HZ_PER_MEL = 200 / 3
SLANEY_CORNER = 15.0
SLANEY_LOG_STEP = math.log(6.4) / 27

SAMPLES_AT_ONCE = (
    1 << 18
)  # on a CPU: so many samples fit into its cache with their spectra, and long recordings into memory


def hz_to_mel(hz: float, scale: str = "slaney") -> float:
    """Frequency -> mel, on Slaney's scale or on HTK's (O'Shaughnessy 1987)."""
    if scale == "htk":
        return 2595 * math.log10(1 + hz / 700)
    if hz < 1000:
        return hz / SLANEY_HZ_PER_MEL
    return SLANEY_CORNER + math.log(hz / 1000) / SLANEY_LOG_STEP


def mel_to_hz(mel: Tensor, scale: str = "slaney") -> Tensor:
    """Mel -> frequency, on Slaney's scale or on HTK's."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    upper = 1000 * torch.exp((mel - SLANEY_CORNER) * SLANEY_LOG_STEP)
    return torch.where(mel < SLANEY_CORNER, mel * SLANEY_HZ_PER_MEL, upper)


def mel_bank(
    sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float, scale: str = "slaney", norm: str = "slaney"
) -> Tensor:
    """Triangles equally spaced in mel: (n_mels, n_fft // 2 + 1), of equal area or (norm="none") equal height."""
    if scale not in ("slaney", "htk") or norm not in ("slaney", "none"):
        raise WavelldmError(f"scale is slaney or htk and norm slaney or none, not '{scale}' and '{norm}'")
    if not 0 <= fmin < fmax <= sr / 2:
        raise WavelldmError(f"{fmin:g} to {fmax:g} Hz does not fit into 0 to {sr / 2:g} Hz; change fmin or fmax")
    bins = torch.linspace(0, sr / 2, n_fft // 2 + 1, dtype=torch.float64)  # (F,)
    mels = torch.linspace(hz_to_mel(fmin, scale), hz_to_mel(fmax, scale), n_mels + 2, dtype=torch.float64)
    low, peak, high = mel_to_hz(mels, scale).unfold(0, 3, 1).T[..., None]  # (n_mels, 1) each
    bank = torch.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)).clamp_min(0)  # (n_mels, F)
    if norm == "slaney":
        bank = bank * 2 / (high - low)
    return bank.float()


def bank_of(config: MelConfig) -> Tensor:
    """The filter bank of a front end: (n_mels, n_fft // 2 + 1)."""
    return mel_bank(config.sr, config.n_fft, config.n_mels, config.fmin, config.fmax, config.scale, config.norm)


class LogMel(nn.Module):
    """wav (B, 1, N) -> log(clamp(bank @ |STFT|**power, floor)) (B, M, F).

    conv=True computes the STFT as a convolution: slower here, but it exports.
    """

    def __init__(self, config: MelConfig, conv: bool = False):
        super().__init__()
        self.config = config
        self.register_buffer("bank", bank_of(config).T.contiguous(), persistent=False)  # (n_fft // 2 + 1, M)
        self.conv = ConvSTFT(config.n_fft, config.hop, config.win, config.padding) if conv else None

    def forward(self, wav: Tensor, sr: int) -> Tensor:
        c = self.config
        if sr != c.sr:
            raise AudioError(f"this front end takes {c.sr} Hz audio, not {sr} Hz; resample it first")
        if wav.ndim != 3 or wav.shape[1] != 1:
            raise AudioError(f"wav must be (batch, 1, samples), not {tuple(wav.shape)}; put channels into the batch")
        if self.conv is not None:
            real, imag = self.conv(wav).transpose(1, 2).chunk(2, dim=2)  # (B, F, n_fft // 2 + 1) each
            mel = self._mel(real, imag)
        else:
            frames = frame(wav[:, 0], c.n_fft, c.hop, c.padding)  # (B, F, n_fft)
            window = hann(c.win, c.n_fft, wav.dtype, wav.device)
            size = max(1, SAMPLES_AT_ONCE // (len(wav) * c.n_fft)) if wav.device.type == "cpu" else frames.shape[1]
            blocks = (torch.fft.rfft(block * window) for block in frames.split(size, dim=1))
            mel = torch.cat([self._mel(spec.real, spec.imag) for spec in blocks], dim=1)
        return mel.clamp_min(c.floor).log().transpose(1, 2)  # (B, M, F)

    def _mel(self, real: Tensor, imag: Tensor) -> Tensor:
        """(B, F, n_fft // 2 + 1) twice -> (B, F, M): the frames of all clips are the rows of one matrix product."""
        spectrum = magnitude(real, imag)
        if self.config.power != 1:
            spectrum = spectrum**self.config.power
        return spectrum @ self.bank


@dataclass(frozen=True)
class Normalisation:
    """y = (x - shift) / scale, then tanh(y) if `squash`: plain numbers, stored with the weights they were used for.

    Nothing is clipped on the way in, so `inverse(forward(x))` is x up to rounding. With `squash`, rounding grows with
    the distance from `shift`: below 1e-4 for the data it was fitted to (2.5 * scale); beyond 7 * scale all is lost.
    """

    shift: float = 0.0
    scale: float = 1.0
    squash: bool = False

    def forward(self, mel: Tensor) -> Tensor:
        y = (mel - self.shift) / self.scale
        return y.tanh() if self.squash else y

    def inverse(self, y: Tensor) -> Tensor:
        if self.squash:
            y = y.clamp(-1 + 1e-6, 1 - 1e-6).atanh()  # a network may output exactly 1
        return y * self.scale + self.shift


def fit_normalisation(kind: str, log_mel: Tensor, power: float = 1.0) -> Normalisation:
    """Fit a normalisation to log-mels (of training data, never of test data).

    log: unchanged. db: 20 log10 of the magnitude (10 log10 if the mel is of power 2). zscore: mean 0, deviation 1.
    percentile: the 1st becomes -1, the 99th +1, and what lies outside stays outside. tanh: extremes become +-0.987.
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
    return Normalisation(shift.item(), max(scale.item(), 1e-6), kind == "tanh")  # silence has deviation 0


def smooth(mel: Tensor, time: float = 1.0, frequency: float = 0.5) -> Tensor:
    """Blur a mel (B, M, F) with a Gaussian whose standard deviations are `time` frames and `frequency` bands (0: no
    blur).
    """
    for sigma, axis in ((time, 2), (frequency, 1)):
        if sigma > 0:
            radius = math.ceil(3 * sigma)
            x = torch.arange(-radius, radius + 1, dtype=mel.dtype, device=mel.device)
            kernel = torch.softmax(-x.square() / (2 * sigma**2), 0)  # sums to 1: a constant stays what it is
            rows = mel.movedim(axis, -1)
            padded = F.pad(rows, (radius, radius), mode="replicate")
            mel = (padded.unfold(-1, 2 * radius + 1, 1) @ kernel).movedim(-1, axis)
    return mel


def scaled(z: Tensor, size: Tensor) -> Tensor:
    """Complex times real as two real products: half the work of `*`, which treats both as complex."""
    return torch.view_as_complex(torch.view_as_real(z) * size[..., None])


def griffin_lim(
    spectrum: Tensor,  # (B, n_fft // 2 + 1, F)
    config: MelConfig,
    iterations: int = 32,
    momentum: float = 0.99,
    seed: int = 0,
    length: int | None = None,
    start: Tensor | None = None,  # complex, of magnitude one: (B, n_fft // 2 + 1, F)
) -> Tensor:
    """Magnitudes -> wav (B, 1, length) whose STFT comes near them.

    Griffin & Lim (1984): alternate between the given magnitudes and the nearest consistent spectrum, the STFT of a
    real signal. Perraudin, Balazs & Sondergaard (2013), algorithm 2: extrapolate the latter by `momentum` times its
    last change (0: the plain method). Starts from the phases of `start`, or random ones drawn from `seed`; gradients
    flow to the magnitudes.
    """
    c, unit = config, start
    if unit is None:
        generator = torch.Generator().manual_seed(seed)  # on the CPU: the same start on any device
        phase = 2 * math.pi * torch.rand(spectrum.shape, generator=generator).to(spectrum)
        unit = torch.polar(torch.ones_like(phase), phase)  # (B, n_fft // 2 + 1, F), complex
    spectrum = (
        spectrum.transpose(1, 2).contiguous().transpose(1, 2)
    )  # frame after frame in memory, as `stft` makes them
    wanted, previous = scaled(unit, spectrum), 0
    for _ in progress_bar(range(iterations), desc="Griffin-Lim", delay=2):
        wav = istft(wanted, c.n_fft, c.hop, c.win, c.padding, length)  # (B, length)
        current = stft(wav, c.n_fft, c.hop, c.win, c.padding)
        ahead = torch.add(current, current - previous, alpha=momentum)
        wanted = scaled(ahead, spectrum / magnitude(ahead.real, ahead.imag))
        previous = current
    return istft(wanted, c.n_fft, c.hop, c.win, c.padding, length)[:, None]  # (B, 1, length)


def mel_to_magnitude(log_mel: Tensor, config: MelConfig, iterations: int = 50) -> Tensor:
    """Log-mel (B, M, F) -> the non-negative magnitudes (B, n_fft // 2 + 1, F) of that mel.

    A mel has fewer numbers than a spectrum, so many spectra fit: start at the smallest (pseudo-inverse), then
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
    """Log-mel (B, M, F) -> wav (B, 1, length), without a vocoder: least squares, then Griffin-Lim."""
    return griffin_lim(mel_to_magnitude(log_mel, config), config, iterations, momentum, seed, length)
