"""A diffusion prior of clean speech over complex spectra, and recordings of any length refined by it (Diffiner, arXiv
2210.17287).

Spectra are (B, 2, bins, T), real and imaginary part, without the bin of 0 Hz. They are not compressed: DDRM's updates
need an observation that is the clean spectrum plus noise, and a logarithm would not leave it so. Instead every bin is
divided by a fixed deviation, measured on clean speech at the nominal level. That is linear, the noise map is divided
alike, and all bins come to the size of the diffusion's noise.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..audio.blocks import cross_faded
from ..audio.levels import active_power
from ..audio.stft import istft, stft
from ..diffusion.samplers import Callback, ddim
from ..diffusion.schedule import KINDS, convert, make, q_sample
from ..errors import AudioError, WavelldmError
from .unet2d import PriorConfig, UNet2d
from .updates import noise_map, refine

NOMINAL_DB = -26.0  # active level of speech at which the deviations are measured
WINDOW, OVERLAP = 256, 32  # frames that the network sees at once, and that two windows share: 4 s and 0.5 s
PIECE = 15 * WINDOW  # frames refined at once, to save memory: a minute


class SpeechPrior(nn.Module):
    """What clean speech looks like: `denoise(x_t, t)` gives E[x0 | x_t], from which `refine` and the samplers draw."""

    Config = PriorConfig

    def __init__(self, config: PriorConfig):
        super().__init__()
        c = self.config = config
        if c.predicts not in KINDS or c.predicts == "eps" and c.schedule == "cosine":
            raise WavelldmError(
                "a prior predicts v or z0, or eps with prior.schedule=linear: "
                "where cosine ends, eps says nothing about the sound"
            )
        self.schedule = make(c.schedule, c.steps, zero_terminal=c.predicts != "eps")
        self.unet = UNet2d(c)
        self.register_buffer("deviation", torch.ones(c.bins))

    def measure(self, deviation: Tensor) -> None:
        """Keep the deviation of each bin (bins,), measured on clean speech, with the weights; at least 1/1000 of the
        largest."""
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
        """x_t (B, 2, bins, T), t (B,) -> the network's estimate of x0, for long spectra in windows that overlap."""

        def estimate(part: Tensor) -> Tensor:
            return self.convert(self.unet(part, t).float(), part, t, self.config.predicts, "z0")

        return torch.cat(list(cross_faded([x_t], estimate, WINDOW, OVERLAP)), dim=-1)

    @torch.no_grad()
    def sample(
        self,
        count: int,
        frames: int,
        steps: int = 50,
        generator: torch.Generator | None = None,
        callback: Callback = None,
    ) -> Tensor:
        """Sounds like speech, without any recording to begin with: wav (count, frames * hop), by DDIM."""
        shape = (count, 2, self.config.bins, frames)
        noise = torch.randn(shape, generator=generator or torch.Generator().manual_seed(0)).to(self.deviation.device)
        return self.to_wav(ddim(self.denoise, noise, self.schedule, steps, callback))

    @torch.no_grad()
    def refine_wav(
        self, noisy: Tensor, cleaned: Tensor, steps: int = 30, eta_a: float | None = 0.9, eta_b: float = 0.9,
        eta_c: float | None = None, seed: int = 0, callback: Callback = None,
    ) -> Tensor:  # fmt: skip
        """A noisy recording and what any denoiser made of it, both (N,) or (C, N) at the prior's rate -> refined.

        All channels are brought to the nominal level by one gain, and back; all get the same noise. What is added to
        `cleaned` has nothing at 0 Hz, so that bin stays as it is there. A recording of over a minute is refined piece
        by piece, with a cross-fade between them.
        """
        if noisy.shape != cleaned.shape or noisy.ndim > 2 or noisy.shape[-1] == 0:
            raise AudioError(
                "noisy and cleaned are both (samples,) or (channels, samples) and alike, "
                f"not {tuple(noisy.shape)} and {tuple(cleaned.shape)}"
            )
        rows = [x.reshape(-1, x.shape[-1]).to(self.deviation) for x in (noisy, cleaned)]  # (C, N) each
        power = float(active_power(rows[1], self.config.sr).max())
        gain = 10 ** (NOMINAL_DB / 20) / power**0.5 if power > 0 else 1.0
        hop, etas = self.config.hop, (eta_a, eta_b, eta_c)
        refined = []
        for pair in zip(*rows):
            process = self._piece(steps, etas, torch.Generator().manual_seed(seed), callback)
            pieces = list(cross_faded([gain * torch.stack(pair)], process, PIECE * hop, OVERLAP * hop))
            refined.append(torch.cat(pieces, dim=-1)[1] / gain)
        return torch.stack(refined).reshape(noisy.shape).to(noisy.device)

    def _piece(
        self, steps: int, etas: tuple, generator: torch.Generator, callback: Callback
    ) -> Callable[[Tensor], Tensor]:
        """A function of (2, n), noisy and cleaned -> (2, n), noisy and refined."""

        def process(pair: Tensor) -> Tensor:
            noisy, cleaned = self.spectrum(pair).split(1)
            sigma = noise_map(noisy, cleaned)
            drawn = refine(self.denoise, noisy, sigma, self.schedule, steps, *etas, callback, generator)
            return torch.stack([pair[0], pair[1] + self.to_wav(drawn - cleaned, pair.shape[-1])[0]])

        return process
