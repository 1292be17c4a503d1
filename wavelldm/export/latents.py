"""What works on latents as graphs: the latent diffusion in one step, and the network that fills gaps.

Noise comes in as an input, so that a graph gives what the network gives with the same noise. Results equal
`LatentDiffusion.sample` between the codec's encoder and decoder, and what `restore/filler.py` does between a damaged
spectrum and the wanted one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..codec.model import Codec
from ..diffusion.latent import LatentDiffusion
from ..errors import WavelldmError
from ..restore.filler import Filler, Told, as_pitch, context
from ..restore.gaps import BINS
from ..restore.latent import SpeechLatent
from .codec import CodecDecoder, CodecEncoder


class DiffusionGraph(nn.Module):
    """wav (1, N), noise (1, D, ceil(N / hop)) -> cleaned (1, N), and the clean latent (1, D, ceil(N / hop))."""

    inputs, outputs, axes = ("wav", "noise"), ("cleaned", "latent"), {"wav": 1, "noise": 2}

    def __init__(self, codec: Codec, diffusion: LatentDiffusion):
        super().__init__()
        if diffusion.config.path == "none":
            raise WavelldmError("a predictor is no diffusion; export weights whose path is noise or bridge")
        self.encoder, self.decoder, self.diffusion = CodecEncoder(codec), CodecDecoder(codec), diffusion
        self.hop, self.dim = codec.hop, diffusion.config.latent_dim

    def silence(self) -> tuple[Tensor, ...]:
        return torch.zeros(1, 13 * self.hop), torch.zeros(1, self.dim, 13)

    def forward(self, wav: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        net, size, count = self.diffusion, wav.shape[1], noise.shape[2]
        cond = net.normalise(self.encoder.latent(F.pad(wav, (0, count * self.hop - size))))
        last = torch.full((1,), net.schedule.steps - 1, dtype=torch.long)
        z = net.denormalise(net.denoise(net.start(cond, noise), last, cond))
        return self.decoder.sound(z)[:, :size], z


class FillerGraph(nn.Module):
    """What belongs into a gap, in one step.

    `seen`: the magnitudes of a damaged sound, brought to length; `lines`: the same on straight lines across what is
    lost, (1, 513, T) each; `share` (1, T): of each frame that is known; `pitch` (1, 2, T) on straight lines; noise (1,
    48, T) -> `size` (1, 513, T), logarithms of magnitudes."""

    inputs, outputs = ("seen", "lines", "share", "pitch", "noise"), ("size",)
    axes = {"seen": 2, "lines": 2, "share": 1, "pitch": 2, "noise": 2}

    def __init__(self, latent: SpeechLatent, filler: Filler):
        super().__init__()
        self.latent, self.filler = latent, filler

    def silence(self) -> tuple[Tensor, ...]:
        t, size = 13, self.filler.config.size
        return (
            torch.ones(1, BINS, t),
            torch.ones(1, BINS, t),
            torch.ones(1, t),
            torch.ones(1, 2, t),
            torch.zeros(1, size, t),
        )

    def forward(self, seen: Tensor, lines: Tensor, share: Tensor, pitch: Tensor, noise: Tensor) -> tuple[Tensor]:
        z, _ = self.latent.encode(lines)
        told = Told(z, pitch, share, context(pitch, share, self.latent.mel(seen)))
        z, answer = self.filler(told, z + self.filler.config.spread * noise, torch.zeros(1))
        return (self.latent.decode(z, as_pitch(answer)),)


class LatentEncoderGraph(nn.Module):
    """Magnitudes (1, 513, T), about 1 where there is speech -> mean of the latent (1, 48, T)."""

    inputs, outputs, axes = ("magnitudes",), ("z",), {"magnitudes": 2}

    def __init__(self, latent: SpeechLatent):
        super().__init__()
        self.latent = latent

    def silence(self) -> tuple[Tensor, ...]:
        return (torch.ones(1, BINS, 13),)

    def forward(self, magnitudes: Tensor) -> tuple[Tensor]:
        return (self.latent.encode(magnitudes)[0],)


class LatentDecoderGraph(nn.Module):
    """z (1, 48, T), pitch (1, 2, T): octaves above 60 Hz (-1: no voice), voicing -> logarithms of magnitudes (1, 513,
    T)."""

    inputs, outputs, axes = ("z", "pitch"), ("size",), {"z": 2, "pitch": 2}

    def __init__(self, latent: SpeechLatent):
        super().__init__()
        self.latent = latent

    def silence(self) -> tuple[Tensor, ...]:
        return torch.zeros(1, self.latent.config.size, 13), torch.ones(1, 2, 13)

    def forward(self, z: Tensor, pitch: Tensor) -> tuple[Tensor]:
        return (self.latent.decode(z, pitch),)
