"""Two decoders, latent (B, D, T) -> wav (B, 1, T * hop): HiFi-GAN, and a light one that ends in an inverse STFT.

Both stream if built causal (see `nn.layers`): the output then lags `delay` samples behind the frames, and
`finish(state)` gives what is still held back when no more frames come.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ..audio.mel import MelConfig, griffin_lim
from ..audio.stft import POWER, TINY_ENVELOPE, hann, istft, magnitude, overlap_add
from ..errors import WavelldmError
from ..nn.layers import Chain, ChannelNorm, Conv1d, ConvNeXtBlock, ConvTranspose1d, Residual


class Mean(nn.ModuleList):
    """The mean of what several layers make of the same input."""

    def forward(self, x: Tensor) -> Tensor:
        return sum(layer(x) for layer in self) / len(self)

    def initial_state(self, batch: int) -> list:
        return [layer.initial_state(batch) for layer in self]

    def step(self, x: Tensor, state: list) -> tuple[Tensor, list]:
        pairs = [layer.step(x, before) for layer, before in zip(self, state)]
        return sum(y for y, _ in pairs) / len(self), [after for _, after in pairs]


class HiFiGAN(Chain):
    """HiFi-GAN (arXiv 2010.05646, section 2.2): upsample, then average residual blocks of several kernels."""

    delay = 0

    def __init__(
        self,
        dim: int,
        initial: int = 512,
        upsample: tuple = (8, 8, 2, 2, 2),
        kernels: tuple = (3, 7, 11),
        dilations: tuple = (1, 3, 5),
        causal: bool = False,
    ):
        if initial % 2 ** len(upsample):
            raise WavelldmError(
                f"HiFi-GAN halves {initial} channels {len(upsample)} times; choose a multiple of {2 ** len(upsample)}"
            )

        def conv(width: int, kernel: int, dilation: int = 1) -> nn.Module:
            return weight_norm(Conv1d(width, width, kernel, dilation=dilation, causal=causal))

        def residual(width: int, kernel: int, dilation: int) -> Residual:
            relu = nn.LeakyReLU(0.1)
            return Residual(relu, conv(width, kernel, dilation), relu, conv(width, kernel))

        layers, width = [weight_norm(Conv1d(dim, initial, 7, causal=causal))], initial
        for rate in upsample:
            up = ConvTranspose1d(width, width // 2, 2 * rate, rate, causal=causal)
            width //= 2
            layers += [nn.LeakyReLU(0.1), weight_norm(up)]
            layers += [Mean(Chain(*(residual(width, k, d) for d in dilations)) for k in kernels)]
        layers += [nn.LeakyReLU(0.01), weight_norm(Conv1d(width, 1, 7, causal=causal)), nn.Tanh()]
        super().__init__(*layers)

    def finish(self, state: list) -> Tensor:
        """Nothing is held back: (B, 1, 0)."""
        return state[0].new_zeros(state[0].shape[0], 1, 0)


class ISTFTHead(nn.Module):
    """ConvNeXt blocks at the frame rate, then magnitude and phase per bin, and an inverse STFT (arXiv 2306.00814).

    Frame t spans (n_fft - hop) / 2 samples on either side of its own hop: hence the delay when streaming. With `polish`
    the phases are only where Griffin-Lim begins, which looks both ways: such a head does not stream.
    """

    def __init__(
        self,
        dim: int,
        width: int = 256,
        depth: int = 6,
        expansion: int = 4,
        n_fft: int = 1024,
        hop: int = 256,
        causal: bool = False,
        polish: int = 0,
    ):
        super().__init__()
        if causal and polish:
            raise WavelldmError("Griffin-Lim looks into the future; a causal codec needs polish=0")
        self.n_fft, self.hop, self.delay, self.polish = n_fft, hop, (n_fft - hop) // 2, polish
        blocks = (ConvNeXtBlock(width, expansion, causal) for _ in range(depth))
        self.body = Chain(Conv1d(dim, width, 3, causal=causal), ChannelNorm(width), *blocks, ChannelNorm(width))
        self.bins = nn.Conv1d(width, n_fft + 2, 1)
        self.register_buffer("window", hann(n_fft, n_fft), persistent=False)  # (n_fft,)

    def spectrum(self, y: Tensor) -> Tensor:
        """Features (B, C, T) -> complex (B, n_fft / 2 + 1, T); no bin louder than twice a sine at full scale."""
        log_magnitude, phase = self.bins(y).float().chunk(2, dim=1)
        return torch.polar(log_magnitude.clamp(max=math.log(self.n_fft / 2)).exp(), phase)

    def outline(self, x: Tensor) -> Tensor:
        """(B, D, T) -> the magnitudes that it would decode, compressed (B, n_fft / 2 + 1, T)."""
        spectrum = self.spectrum(self.body(x))
        return magnitude(spectrum.real, spectrum.imag).clamp_min(1e-3) ** POWER

    def forward(self, x: Tensor) -> Tensor:
        spectrum = self.spectrum(self.body(x))
        if self.polish:
            size = magnitude(spectrum.real, spectrum.imag)
            frames = MelConfig(n_fft=self.n_fft, win=self.n_fft, hop=self.hop)
            return griffin_lim(size, frames, self.polish, start=spectrum / size)
        return istft(spectrum, self.n_fft, self.hop, self.n_fft, "same")[:, None]  # (B, 1, T * hop)

    def _add(self, frames: Tensor, tail: Tensor) -> Tensor:
        """Overlap-add (..., T, n_fft) onto what is left of the frames before: (..., T * hop + n_fft - hop)."""
        if frames.shape[-2] == 0:
            return tail
        return overlap_add(frames, self.hop) + F.pad(tail, (0, frames.shape[-2] * self.hop))

    def initial_state(self, batch: int) -> tuple:
        """That of the body, two overlapping tails (signal, squared windows), samples before the sound to be dropped."""
        tail = self.window.new_zeros(batch + 1, self.n_fft - self.hop)
        return self.body.initial_state(batch), tail[1:], tail[0], self.delay

    def step(self, x: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        body, wav, envelope, drop = state
        y, body = self.body.step(x, body)
        count = y.shape[-1]
        if count:
            frames = torch.fft.irfft(self.spectrum(y).transpose(1, 2), n=self.n_fft) * self.window  # (B, T, n_fft)
            wav = self._add(frames, wav)
            envelope = self._add(self.window.square().expand(count, -1), envelope)
        ready = count * self.hop
        out = wav[:, :ready] / envelope[:ready].clamp_min(TINY_ENVELOPE)
        return out[:, None, drop:], (body, wav[:, ready:], envelope[ready:], max(0, drop - ready))

    def finish(self, state: tuple) -> Tensor:
        """The last `delay` samples (B, 1, delay), which no later frame reaches now."""
        _, wav, envelope, drop = state
        return (wav[:, : self.delay] / envelope[: self.delay].clamp_min(TINY_ENVELOPE))[:, None, drop:]
