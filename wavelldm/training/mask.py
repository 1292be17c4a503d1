"""How the mask network is trained: compressed spectra, SI-SDR and estimates of PESQ and ESTOI; alone or guided by a
latent."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..audio.stft import magnitude
from ..codec.model import Codec
from ..config import override
from ..data.corpora import Corpus
from ..data.degrade import Degradation
from ..denoise.mask import MaskConfig, MaskNet
from ..diffusion.latent import LatentDiffusion
from ..diffusion.samplers import FrameNoise
from ..errors import WavelldmError
from ..metrics.differentiable import disturbance, estoi_distance
from ..weights import check_needs, load, needed
from .loop import Task
from .mixtures import mixtures
from .net2net import widen_from
from .options import Options, option
from .presets import Preset

RECIPE = Degradation(snr=(-5.0, 20.0), reverb=0.2, level=1.0, band=0.05, clip=0.05)
VALID = Degradation(snr=(0.0, 17.5))
HELD_OUT = 48  # crops to validate on
LOSS_WEIGHTS = {"spectral": 1.0, "si_sdr": -0.1, "disturbance": 1.0, "estoi": 4.0}


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


def weighed(parts: dict) -> Tensor | float:
    return sum(weight * parts[name] for name, weight in LOSS_WEIGHTS.items())


@dataclass(frozen=True)
class MaskOptions(Options):
    seconds: float = option(2.0, "length of a crop", above=0)
    half: bool = option(False, "compute in bfloat16 where that is faster")
    hissy: float = option(0.0, "share of the speech to leave out: that with the loudest pauses", least=0)
    harmless: float = option(
        0.0,
        "share of crops with hardly any noise, and of speech that is narrow from the start: both should stay",
        least=0,
    )
    varied: float = option(
        0.0, "share of the speech at another speed and pitch, through another microphone: more voices", least=0
    )
    even: bool = option(False, "draw voices with much speech less often: each counts as the root of its seconds")
    diffusion: str | None = option(
        None, "weights of the diffusion that guides it; without, it works alone", str, metavar="WEIGHTS"
    )
    codec: str | None = option(
        None, "with --diffusion: the codec it was trained with, if that is not found by itself", str, metavar="WEIGHTS"
    )


class MaskTask(Task):
    """Batches are (noisy, clean). `guide`: a function from noisy wav (B, 1, N) to the latent (B, D, T) that the network
    may look at, or None."""

    network, Network, Options, uses_rooms = "mask", MaskNet, MaskOptions, True

    def __init__(
        self,
        config: MaskConfig,
        options: MaskOptions = MaskOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
        guide: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__(options, device, seed)
        self.sr, self.guide = config.sr, guide
        self.networks, self.groups = {"model": MaskNet(config).to(device)}, {"mask": ["model"]}
        self.networks["model"].half = self.half

    @classmethod
    def create(
        cls,
        preset: Preset,
        changes: list[str],
        options: MaskOptions,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> "MaskTask":
        if options.diffusion is None:
            if options.codec is not None:
                raise WavelldmError("a codec is of use only beside the diffusion that guides; give --diffusion too")
            return cls(override(preset.mask, changes), options, device, seed)
        diffusion = load(options.diffusion, LatentDiffusion, device)
        codec = load(options.codec or needed(options.diffusion, "codec"), Codec, device)
        check_needs(options.diffusion, "codec", codec)
        config = override(replace(preset.mask, latent_dim=diffusion.config.latent_dim), changes)
        if (config.latent_dim, config.sr, config.hop) != (diffusion.config.latent_dim, codec.sr, codec.hop):
            raise WavelldmError(
                f"the latent has {diffusion.config.latent_dim} channels every {codec.hop} samples at {codec.sr} Hz and "
                f"the mask network is set to {config.latent_dim}, {config.hop} and {config.sr}; make them equal"
            )
        task = cls(config, options, device, seed, guide_of(codec, diffusion))
        task.needs = {"codec": codec, "diffusion": diffusion}
        return task

    def read(self, corpus: Corpus) -> None:
        o = self.options
        recipe = replace(RECIPE, faint=o.harmless, narrow=o.harmless)
        self.reads_share = True
        self.batches, self.valid = mixtures(
            corpus,
            self.sr,
            o.seconds,
            o.batch_size,
            self.seed,
            o.num_workers,
            recipe=recipe,
            valid_recipe=VALID,
            held_out=HELD_OUT,
            hissy=o.hissy,
            varied=o.varied,
            even=o.even,
        )

    def start_from(self, name: str) -> None:
        """Begin as these weights, which may lack a guide, blocks, taps, frames ahead or copies of channels."""
        widen_from(self.networks["model"], load(name, MaskNet), name)

    @torch.no_grad()
    def latent(self, noisy: Tensor) -> Tensor | None:
        return None if self.guide is None else self.guide(noisy)

    def distances(self, net: MaskNet, noisy: Tensor, clean: Tensor) -> dict:
        return self.distances_of(net, net(noisy, self.latent(noisy)), clean)

    def distances_of(self, net: MaskNet, wav: Tensor, clean: Tensor) -> dict:
        return {
            "spectral": spectral_loss(net, wav, clean),
            "si_sdr": si_sdr(wav, clean).clamp(-20, 40).mean(),
            "disturbance": disturbance(wav, clean, self.sr).mean(),
            "estoi": estoi_distance(wav, clean, self.sr).mean(),
        }

    def losses(self, batch: tuple) -> Iterator:
        noisy, clean = (x.to(self.device) for x in batch)  # (B, 1, N)
        parts = self.distances(self.networks["model"], noisy, clean)
        yield "mask", weighed(parts), {k: v.detach() for k, v in parts.items()}

    @torch.no_grad()
    def validate(self, model: MaskNet) -> dict:
        rows = [self.distances(model, noisy.to(self.device), clean.to(self.device)) for noisy, clean in self.valid]
        means = {name: sum(float(row[name]) for row in rows) / len(rows) for name in LOSS_WEIGHTS}
        return {"score": weighed(means), **{f"valid_{name}": value for name, value in means.items()}}

    @torch.no_grad()
    def samples(self, model: MaskNet) -> dict:
        noisy, clean = (x[:1].to(self.device) for x in self.valid[0])
        return {"noisy": noisy[0].cpu(), "clean": clean[0].cpu(), "cleaned": model(noisy, self.latent(noisy))[0].cpu()}


def guide_of(codec: Codec, diffusion: LatentDiffusion) -> Callable[[Tensor], Tensor]:
    """noisy wav (B, 1, N) -> what the diffusion makes of its latent in one step, scaled (B, D, ceil(N / hop))."""

    def guide(noisy: Tensor) -> Tensor:
        noise = FrameNoise(int(torch.randint(1 << 31, ())))  # every batch another
        return diffusion.normalise(diffusion.sample(codec.encode(noisy, codec.sr), 1, noise=noise))

    return guide
