"""What training the mask network means: compressed spectra, SI-SDR and what PESQ and ESTOI hear; alone or guided by a latent."""

from dataclasses import replace

import torch
from torch import Tensor

from ..audio.stft import magnitude
from ..codec.model import Codec
from ..data.clips import Clips
from ..data.corpora import Material
from ..data.degrade import Degradation
from ..data.loader import batches, valid_pairs
from ..denoise.mask import MaskConfig, MaskNet
from ..diffusion.latent import LatentDiffusion
from ..diffusion.samplers import FrameNoise
from ..metrics.differentiable import disturbance, estoi_distance
from ..weights import load
from . import parallel
from .loop import Plan, train_to_weights
from .net2net import begin_as
from .presets import Preset

RECIPE = Degradation(snr=(-5.0, 20.0), reverb=0.2, level=1.0, band=0.05, clip=0.05)
VALID = Degradation(snr=(0.0, 17.5))
WEIGHTS = {"spectral": 1.0, "si_sdr": -0.1, "disturbance": 1.0, "unlike": 4.0}


def spectral_loss(net: MaskNet, wav: Tensor, clean: Tensor) -> Tensor:
    """Squared error of magnitude ** 0.3 and of the complex spectrum with its magnitudes so compressed, 70 to 30."""
    parts = []
    for x in (wav, clean):
        spec = net.spectrum(x)
        size = magnitude(spec.real, spec.imag).clamp_min(1e-3)
        parts.append((size**0.3, spec * size**-0.7))
    (a, z), (b, y) = parts
    return 70 * (a - b).square().mean() + 30 * torch.view_as_real(z - y).square().sum(-1).mean()


def si_sdr(wav: Tensor, clean: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB per item (arXiv 1811.02508, eq. 3) -> (B,)."""
    wav, clean = wav.flatten(1), clean.flatten(1)
    target = (wav * clean).sum(1, keepdim=True) / (clean.square().sum(1, keepdim=True) + 1e-8) * clean
    return 10 * ((target.square().sum(1) + 1e-8) / ((wav - target).square().sum(1) + 1e-8)).log10()


def weighed(parts: dict):
    return sum(weight * parts[name] for name, weight in WEIGHTS.items())


class MaskTask:
    """`guide`: a function from noisy wav (B, 1, N) to the latent (B, D, T) that the network may look at, or None."""

    def __init__(self, config: MaskConfig, valid: list, guide=None, device="cpu", seed: int = 0):
        torch.manual_seed(seed)
        self.sr, self.valid, self.guide, self.device = config.sr, valid, guide, torch.device(device)
        self.networks = {"model": MaskNet(config).to(device)}
        self.groups = {"mask": ["model"]}

    @torch.no_grad()
    def latent(self, noisy: Tensor) -> Tensor | None:
        return None if self.guide is None else self.guide(noisy)

    def distances(self, net: MaskNet, noisy: Tensor, clean: Tensor) -> dict:
        wav = net(noisy, self.latent(noisy))
        return {
            "spectral": spectral_loss(net, wav, clean),
            "si_sdr": si_sdr(wav, clean).clamp(-20, 40).mean(),
            "disturbance": disturbance(wav, clean, self.sr).mean(),
            "unlike": estoi_distance(wav, clean, self.sr).mean(),
        }

    def losses(self, batch):
        noisy, clean = (x.to(self.device) for x in batch)  # (B, 1, N)
        parts = self.distances(self.networks["model"], noisy, clean)
        yield "mask", weighed(parts), {k: v.detach() for k, v in parts.items()}

    @torch.no_grad()
    def validate(self, model: MaskNet) -> dict:
        rows = [self.distances(model, noisy.to(self.device), clean.to(self.device)) for noisy, clean in self.valid]
        means = {name: sum(float(row[name]) for row in rows) / len(rows) for name in WEIGHTS}
        return {"score": weighed(means), **{f"valid_{name}": value for name, value in means.items()}}

    @torch.no_grad()
    def samples(self, model: MaskNet) -> dict:
        noisy, clean = (x[:1].to(self.device) for x in self.valid[0])
        return {"noisy": noisy[0].cpu(), "clean": clean[0].cpu(), "cleaned": model(noisy, self.latent(noisy))[0].cpu()}


def guide_of(codec: Codec, diffusion: LatentDiffusion):
    """noisy wav (B, 1, N) -> what the diffusion makes of its latent in one step, scaled (B, D, ceil(N / hop))."""

    def guide(noisy: Tensor) -> Tensor:
        noise = FrameNoise(int(torch.randint(1 << 31, ())))  # every batch another
        return diffusion.normalise(diffusion.sample(codec.encode(noisy, codec.sr), 1, noise=noise))

    return guide


def run(
    preset: Preset,
    material: Material,
    plan: Plan,
    folder,
    batch: int = 4,
    seconds: float = 2.0,
    codec: Codec | None = None,
    diffusion: LatentDiffusion | None = None,
    start: str | None = None,
    workers: int = 0,
    progress: bool = True,
) -> dict:
    """Train the mask network in `folder`, or go on where it stopped; the result is in best.pt. Returns what `train.fit` does.

    With a codec and a diffusion their estimate guides it. `start`: weights to begin with; a guide, further blocks, taps, frames ahead
    and copies of channels may be new to them, and change nothing at first.
    """
    device, sr = parallel.begin(), preset.mask.sr
    if diffusion is not None:
        preset = replace(preset, mask=replace(preset.mask, latent_dim=preset.diffusion.latent_dim))
        codec, diffusion = codec.to(device), diffusion.to(device)
    recipe = Degradation(snr=None) if material.recorded else RECIPE
    speech = Clips(material.speech, sr)
    noise = None if material.recorded else Clips(material.noise, sr)
    valid_recipe = Degradation(snr=None) if material.recorded else VALID
    valid = valid_pairs(material.valid_speech, material.valid_noise, valid_recipe, sr, 4.0, 8, count=48)
    task = MaskTask(
        preset.mask, valid, guide_of(codec, diffusion) if diffusion is not None else None, device, plan.seed
    )
    if start:
        begin_as(task.networks["model"], load(start, MaskNet), start)

    def stream(first: int):
        return batches(speech, noise, recipe, sr, seconds, batch, plan.seed, workers, first)

    return train_to_weights(
        task,
        stream,
        plan,
        folder,
        f"{preset.name}-mask",
        {"codec": codec, "diffusion": diffusion} if diffusion is not None else None,
        progress,
    )
