"""How the latent diffusion is trained: noise in, the network's guess at it out, squared error; on cached latents."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor

from ..codec.model import Codec
from ..config import override
from ..data.clips import Clips
from ..data.corpora import Corpus
from ..data.degrade import Degradation
from ..diffusion.latent import DiffusionConfig, LatentDiffusion
from ..diffusion.samplers import FrameNoise
from ..diffusion.schedule import convert
from ..errors import WavelldmError
from ..weights import load
from . import parallel
from .latents import Latents, build
from .loop import Task, adopt
from .mixtures import RECORDED
from .options import CUTTING, HalfOptions, option
from .presets import Preset

# What the network learns to undo; what is missing altogether, in time or in frequency, is part of it.
RECIPE = Degradation(
    snr=(-5.0, 25.0), reverb=0.2, level=1.0, clip=0.1, band=0.25, cutoff=(2_000.0, 7_000.0), dropout=0.3
)
VALID = Degradation(snr=(0.0, 17.5), level=1.0)
DROP = 0.1  # share of items without their condition
LAST = 0.5  # share of items at the last step, if what is decoded counts: from there a single step has to get it right
LEVELS = 8  # steps t at which each validation item is looked at
CLIP, HELD_OUT = 4.0, 64  # seconds of a clip whose latents are kept, and how many such clips are held out
CUT = 0.5  # share of items with gaps, if random cutting is asked for


@dataclass(frozen=True)
class DiffusionOptions(HalfOptions):
    seconds: float = option(1.5, "length of a crop", above=0)
    codec: str = option("voice16k", "weights of the codec whose latents are learnt, by name or path", metavar="WEIGHTS")
    hours: float = option(20.0, "hours of noisy and clean latents to keep on disk, 0.4 GB each", above=0)
    add_random_cutting: bool = option(False, CUTTING)
    decoded: float = option(0.0, "weight of a loss on what is decoded, beside that on the latent itself", least=0)


class DiffusionTask(Task):
    """Batches are latents (noisy, clean) as the codec makes them. `options.decoded` is the weight of a second loss, on
    what the decoder's head makes of the latent: directions that change no sound then count less (not for HiFi-GAN)."""

    network, Network, Options, preset = "diffusion", LatentDiffusion, DiffusionOptions, "voice16k"
    uses_rooms = True

    def __init__(
        self,
        config: DiffusionConfig,
        codec: Codec,
        options: DiffusionOptions = DiffusionOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        super().__init__(options, device, seed)
        if options.decoded and not hasattr(codec.decoder, "outline"):
            raise WavelldmError("this codec's decoder draws no outline to compare; leave the decoded loss out")
        if config.latent_dim != codec.config.latent_dim:
            raise WavelldmError(
                f"the codec's latents have {codec.config.latent_dim} channels and the diffusion is set to "
                f"{config.latent_dim}; leave latent_dim out"
            )
        self.decoded, self.sr = options.decoded, codec.sr
        self.codec = codec.to(device).eval().requires_grad_(False)
        self.networks, self.groups = {"model": LatentDiffusion(config).to(device)}, {"unet": ["model"]}
        self.needs = {"codec": codec}

    @classmethod
    def create(
        cls,
        preset: Preset,
        changes: list[str],
        options: DiffusionOptions,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> "DiffusionTask":
        codec = load(options.codec, Codec, device)
        config = replace(preset.diffusion, latent_dim=codec.config.latent_dim)
        return cls(override(config, changes), codec, options, device, seed)

    def read(self, corpus: Corpus) -> None:
        """Encode a corpus, or find the latents that were encoded before."""
        o, recorded = self.options, corpus.recorded
        rooms = None if recorded else corpus.room_responses(self.sr)
        recipe, valid_recipe = (RECORDED, RECORDED) if recorded else (RECIPE, VALID)
        if o.add_random_cutting:
            recipe = replace(recipe, dropout=CUT)
        number = max(1, round(o.hours * 3600 / CLIP))

        def encode() -> tuple[Latents, Latents]:
            speech = [Clips(items, self.sr) for items in (corpus.speech, corpus.valid_speech)]
            noise = [None if recorded else Clips(items, self.sr) for items in (corpus.noise, corpus.valid_noise)]
            train = build(
                self.codec, speech[0], noise[0], recipe, number, CLIP, self.seed, rooms=rooms, workers=o.num_workers
            )
            return train, build(self.codec, speech[1], noise[1], valid_recipe, HELD_OUT, CLIP, self.seed, valid=True)

        self.with_latents(*parallel.in_turn(encode))

    def with_latents(self, train: Latents, valid: Latents) -> "DiffusionTask":
        """Train and validate on latents that are at hand."""
        o, whole = self.options, min(len(valid.clean), HELD_OUT)
        self.networks["model"].measure(train.mean.to(self.device), train.deviation.to(self.device))
        self.valid = [
            torch.from_numpy(part[:whole].astype("float32")).to(self.device) for part in (valid.noisy, valid.clean)
        ]
        frames = min(self.codec.frames(round(o.seconds * self.sr)), train.clean.shape[2])
        self.batches = lambda first: (train.batch(step, o.batch_size, frames, self.seed) for step in count(first))
        return self

    def start_from(self, name: str) -> None:
        """Begin with the U-Net of these weights; the statistics are those of the latents at hand."""
        adopt(self.networks["model"].unet, load(name, LatentDiffusion).unet.state_dict(), name)

    def error(
        self, model: LatentDiffusion, noisy: Tensor, clean: Tensor, t: Tensor, eps: Tensor, drop: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Mean squared error of each item (B,) at step t (B,), and the network's estimate of z0, scaled."""
        predicts = model.config.predicts
        z0, cond = model.normalise(clean), model.normalise(noisy)
        z_t = model.between(z0, cond, t, eps)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            guess = model.unet(z_t, t, cond, drop)
        wanted = eps if predicts == "eps" else convert(model.schedule, z0, z_t, t, "z0", predicts)
        error = (guess.float() - wanted).square().mean((1, 2))
        return error, convert(model.schedule, guess.float(), z_t, t, predicts, "z0") if self.decoded else None

    def outline(self, z: Tensor) -> Tensor:
        """A codec's latent (B, D, T) -> what its decoder is about to draw (B, K, T)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.codec.decoder.outline(self.codec.upsampler(z)).float()

    def losses(self, batch: tuple) -> Iterator:
        noisy, clean = (x.to(self.device) for x in batch)  # (B, D, T)
        model, last = self.networks["model"], self.networks["model"].schedule.steps - 1
        whole_batch = len(clean) * parallel.parts()[1]
        t, eps, drop = parallel.share(
            (
                torch.randint(last + 1, (whole_batch,)),
                torch.randn(whole_batch, *clean.shape[1:]),
                torch.rand(whole_batch),
            )
        )
        t, eps, drop = t.to(self.device), eps.to(self.device), (drop < DROP).to(self.device)
        if model.config.path == "none":
            t, drop = torch.full_like(t, last), torch.zeros_like(drop)
        elif self.decoded:
            (place,) = parallel.share((torch.arange(whole_batch, device=t.device),))
            t = torch.where(place < LAST * whole_batch, last, t)
        loss, z0 = self.error(model, noisy, clean, t, eps, drop)
        loss = loss.mean()
        figures = {"latent": loss.detach()}
        if self.decoded:
            with torch.no_grad():
                wanted = self.outline(clean)
            decoded = (self.outline(model.denormalise(z0)) - wanted).square().mean()
            decoded = decoded / spread_of(wanted)
            loss = loss + self.decoded * decoded
            figures["decoded"] = decoded.detach()
        yield "unet", loss, figures

    @torch.no_grad()
    def validate(self, model: LatentDiffusion) -> dict:
        """The training loss at fixed steps and noises, and how far one step and five end from the clean latent (1: as
        far as the mean)."""
        noisy, clean = self.valid
        generator = torch.Generator().manual_seed(1)
        last = model.schedule.steps - 1
        errors = []
        for k in range(LEVELS):
            t = torch.full(
                (len(clean),),
                last if model.config.path == "none" else round(last * (k + 1) / LEVELS),
                device=self.device,
            )
            eps = torch.randn(clean.shape, generator=generator).to(self.device)
            errors.append(float(self.error(model, noisy, clean, t, eps, None)[0].mean()))
        figures = {"score": sum(errors) / LEVELS, "at_end": errors[-1]}
        for steps in (1,) if model.config.path == "none" else (1, 5):
            drawn = model.sample(noisy, steps, noise=FrameNoise(2))
            figures[f"steps_{steps}"] = float((model.normalise(drawn) - model.normalise(clean)).square().mean())
            if self.decoded:
                ours, wanted = self.outline(drawn), self.outline(clean)
                figures[f"decoded_{steps}"] = float((ours - wanted).square().mean() / wanted.var())
        if self.decoded:
            figures["score"] += self.decoded * figures["decoded_1"]
        return figures

    @torch.no_grad()
    def samples(self, model: LatentDiffusion) -> dict:
        noisy, clean = (x[:1] for x in self.valid)
        drawn = model.sample(noisy, 1, noise=FrameNoise(2))
        return {
            name: self.codec.decode(z)[0].cpu() for name, z in (("noisy", noisy), ("clean", clean), ("denoised", drawn))
        }


def spread_of(x: Tensor) -> Tensor:
    """The variance of x over the whole batch, of all processes."""
    mean = parallel.mean_of_all(x.mean())
    count = x.numel() * parallel.world()
    return parallel.mean_of_all((x - mean).square().mean()) * count / (count - 1)
