"""A diffusion prior of clean speech over complex spectra, and recordings of any length refined by it (Diffiner, arXiv 2210.17287).

Spectra are (B, 2, bins, T), real and imaginary part, without the bin of 0 Hz. They are not compressed: DDRM's updates need an observation that
is the clean spectrum plus noise, and a logarithm would not leave it so. Instead every bin is divided by a fixed deviation, measured on
clean speech at the nominal level: that is linear, the noise map is divided alike, and speech comes to lie between the bins as evenly
as the noise of the diffusion does.
"""

import torch
from torch import Tensor, nn

from ..audio.levels import active_power
from ..audio.stft import istft, stft
from ..diffusion.samplers import ddim
from ..diffusion.schedule import KINDS, convert, make, q_sample
from ..errors import AudioError, WavelldmError
from .unet2d import PriorConfig, UNet2d
from .updates import noise_map, refine

LEVEL = -26.0  # dB of active speech at which the deviations are measured


WINDOW, OVERLAP = 256, 32  # frames that the network sees at once, and that two windows share: 4 s and 0.5 s


PIECE = 15 * WINDOW  # frames refined at once, for the sake of memory: a minute


def starts(total: int, size: int, overlap: int) -> range:
    """Where windows of `size` begin that share `overlap` and reach to `total` together; one if it fits into one."""
    return range(0, max(1, total - overlap), size - overlap)


def overlapped(function, x: Tensor, size: int, overlap: int) -> Tensor:
    """`function` of windows of x (..., T) that share `overlap` and fade into each other there -> (..., T)."""
    total = x.shape[-1]
    if total <= size:
        return function(x)
    rise, out = (torch.arange(overlap, device=x.device) + 0.5) / overlap, None
    for start in starts(total, size, overlap):
        y = function(x[..., start : start + size])
        fade = torch.ones(y.shape[-1], device=y.device)
        if start:
            fade[:overlap] = rise
        if start + size < total:
            fade[-overlap:] = 1 - rise
        out = y.new_zeros(*y.shape[:-1], total) if out is None else out
        out[..., start : start + size] += fade * y
    return out


class SpeechPrior(nn.Module):
    """What clean speech looks like: `denoise(x_t, t)` gives E[x0 | x_t], from which `refine` and the samplers draw."""

    Config = PriorConfig

    def __init__(self, config: PriorConfig):
        super().__init__()
        c = self.config = config
        if c.predicts not in KINDS or c.predicts == "eps" and c.schedule == "cosine":
            raise WavelldmError(
                "a prior predicts v or z0, or eps with prior.schedule=linear: where cosine ends, eps says nothing about the sound"
            )
        self.schedule = make(c.schedule, c.steps, zero_terminal=c.predicts != "eps")
        self.unet = UNet2d(c)
        self.register_buffer("deviation", torch.ones(c.bins))

    def measure(self, deviation: Tensor) -> None:
        """Keep the deviation of each bin (bins,), measured on clean speech, with the weights. Bins that are next to empty count as a little fuller."""
        if deviation.shape != self.deviation.shape or not (torch.isfinite(deviation).all() and deviation.max() > 0):
            raise WavelldmError("the spectra's deviations are not finite, or all zero; check the data")
        self.deviation.copy_(deviation.clamp_min(1e-3 * float(deviation.max())))

    def spectrum(self, wav: Tensor) -> Tensor:
        """wav (B, N) -> (B, 2, bins, ceil(N / hop)), scaled."""
        c = self.config
        spec = stft(wav, c.n_fft, c.hop, c.n_fft)[:, 1:]  # (B, bins, T) complex
        return torch.view_as_real(spec).permute(0, 3, 1, 2) / self.deviation[:, None]

    def to_wav(self, spec: Tensor, length: int | None = None) -> Tensor:
        """The way back: (B, 2, bins, T) -> wav (B, length), exact but for what lay at 0 Hz."""
        c = self.config
        parts = (spec.float() * self.deviation[:, None]).permute(0, 2, 3, 1).contiguous()
        return istft(
            nn.functional.pad(torch.view_as_complex(parts), (0, 0, 1, 0)), c.n_fft, c.hop, c.n_fft, length=length
        )

    def noised(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t (B, 2, bins, T) at step t (B,)."""
        return q_sample(self.schedule, x0.flatten(1, 2), t, eps.flatten(1, 2)).unflatten(1, (2, -1))

    def convert(self, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, target: str) -> Tensor:
        return convert(self.schedule, prediction.flatten(1, 2), x_t.flatten(1, 2), t, source, target).unflatten(
            1, (2, -1)
        )

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (B, 2, bins, T), t (B,) -> the network's estimate of x0. Long spectra are seen in windows that overlap."""
        see = lambda part: self.convert(self.unet(part, t).float(), part, t, self.config.predicts, "z0")
        return overlapped(see, x_t, WINDOW, OVERLAP)

    @torch.no_grad()
    def sample(self, count: int, frames: int, steps: int = 50, generator=None, callback=None) -> Tensor:
        """Speech of nobody about nothing: wav (count, frames * hop), by DDIM. It shows what the prior knows."""
        shape = (count, 2, self.config.bins, frames)
        noise = torch.randn(shape, generator=generator or torch.Generator().manual_seed(0)).to(self.deviation.device)
        return self.to_wav(ddim(self.denoise, noise, self.schedule, steps, callback))

    @torch.no_grad()
    def refine_wav(
        self, noisy: Tensor, cleaned: Tensor, steps: int = 30, eta_a: float | None = 0.9, eta_b: float = 0.9, eta_c: float | None = None,
        seed: int = 0, callback=None,
    ) -> Tensor:  # fmt: skip
        """A noisy recording and what any denoiser made of it, both (N,) or (C, N) at the prior's rate -> refined, of the same shape.

        All channels are brought to the level the prior knows by one gain, and back; all get the same noise. What is added to `cleaned` has
        nothing at 0 Hz, so that bin stays as it is there. A recording of over a minute is refined piece by piece, with a fade between them.
        """
        if noisy.shape != cleaned.shape or noisy.ndim > 2 or noisy.shape[-1] == 0:
            raise AudioError(
                f"noisy and cleaned are both (samples,) or (channels, samples) and alike, not {tuple(noisy.shape)} and {tuple(cleaned.shape)}"
            )
        power = float(active_power(cleaned.reshape(-1, cleaned.shape[-1]), self.config.sr).max())
        gain = 10 ** (LEVEL / 20) / power**0.5 if power > 0 else 1.0
        hop, device, etas = self.config.hop, self.deviation.device, (eta_a, eta_b, eta_c)

        def piece(pair: Tensor) -> Tensor:  # (2, n) -> (n,)
            seen, guess = self.spectrum(pair).split(1)
            drawn = refine(self.denoise, seen, noise_map(seen, guess), self.schedule, steps, *etas, callback, generator)
            return pair[1] + self.to_wav(drawn - guess, pair.shape[-1])[0]

        rows = []
        for pair in zip(noisy.reshape(-1, noisy.shape[-1]), cleaned.reshape(-1, noisy.shape[-1])):
            generator = torch.Generator().manual_seed(seed)
            rows.append(
                overlapped(piece, gain * torch.stack(pair).float().to(device), PIECE * hop, OVERLAP * hop) / gain
            )
        return torch.stack(rows).reshape(noisy.shape).to(noisy.device)
