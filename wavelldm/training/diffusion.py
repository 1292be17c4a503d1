"""What training the latent diffusion means: noise in, the network's guess at it out, squared error; on cached latents."""

from itertools import count

import torch
from torch import Tensor

from ..codec.model import Codec
from ..data.clips import Clips
from ..data.corpora import Material
from ..data.degrade import Degradation
from ..diffusion.latent import LatentDiffusion
from ..diffusion.samplers import FrameNoise
from ..diffusion.schedule import convert
from ..errors import WavelldmError
from ..weights import load
from . import parallel
from .latents import Latents, build
from .loop import Plan, adopt, fast_half, train_to_weights
from .presets import Preset

# What the network learns to undo; what is missing altogether, in time or in frequency, is part of it.
RECIPE = Degradation(
    snr=(-5.0, 25.0), reverb=0.2, level=1.0, clip=0.1, band=0.25, cutoff=(2_000.0, 7_000.0), dropout=0.3
)
VALID = Degradation(snr=(0.0, 17.5), level=1.0)
DROP = 0.1  # share of items without their condition
LAST = 0.5  # share of items at the last step, if what is decoded counts: from there a single step has to get it right
LEVELS = 8  # steps t at which each validation item is looked at


class DiffusionTask:
    """Batches are latents (noisy, clean) as the codec makes them. With `decoded` > 0 not only the latent counts, but also,
    times that, what the decoder's head makes of it: directions that nobody hears then weigh less (not for HiFi-GAN)."""

    def __init__(
        self, preset: Preset, codec: Codec, train: Latents, valid: Latents, device="cpu", seed: int = 0, half: bool = True,
        decoded: float = 0.0,
    ):  # fmt: skip
        if decoded and not hasattr(codec.decoder, "outline"):
            raise WavelldmError("this codec's decoder draws no outline to compare; leave the decoded loss out")
        torch.manual_seed(seed)
        self.decoded = decoded
        self.codec, self.sr, self.device = codec.to(device).eval().requires_grad_(False), codec.sr, torch.device(device)
        self.half = half and fast_half(self.device)
        model = LatentDiffusion(preset.diffusion).to(device)
        model.measure(train.mean.to(device), train.deviation.to(device))
        self.networks, self.groups = {"model": model}, {"unet": ["model"]}
        whole = min(len(valid.clean), 64)
        self.valid = [
            torch.from_numpy(part[:whole].astype("float32")).to(device) for part in (valid.noisy, valid.clean)
        ]

    def error(self, model: LatentDiffusion, noisy: Tensor, clean: Tensor, t: Tensor, eps: Tensor, drop: Tensor | None):
        """Mean squared error per item (B,) of what the network predicts at step t (B,); and its estimate of z0, scaled."""
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

    def losses(self, batch):
        noisy, clean = (x.to(self.device) for x in batch)  # (B, D, T)
        model, last = self.networks["model"], self.networks["model"].schedule.steps - 1
        everybody = len(clean) * parallel.world()
        t, eps, drop = parallel.share(
            (torch.randint(last + 1, (everybody,)), torch.randn(everybody, *clean.shape[1:]), torch.rand(everybody))
        )
        t, eps, drop = t.to(self.device), eps.to(self.device), (drop < DROP).to(self.device)
        if model.config.path == "none":
            t, drop = torch.full_like(t, last), torch.zeros_like(drop)
        elif self.decoded:
            t = torch.where(torch.arange(len(t), device=t.device) < LAST * len(t), last, t)
        loss, z0 = self.error(model, noisy, clean, t, eps, drop)
        loss = loss.mean()
        figures = {"latent": loss.detach()}
        if self.decoded:
            with torch.no_grad():
                wanted = self.outline(clean)
            heard = (self.outline(model.denormalise(z0)) - wanted).square().mean() / wanted.var()
            loss = loss + self.decoded * heard
            figures["heard"] = heard.detach()
        yield "unet", loss, figures

    @torch.no_grad()
    def validate(self, model: LatentDiffusion) -> dict:
        """The training loss at fixed steps and noises, and how far one step and five end from the clean latent (1: as far as the mean)."""
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
                figures[f"heard_{steps}"] = float((ours - wanted).square().mean() / wanted.var())
        if self.decoded:
            figures["score"] += self.decoded * figures["heard_1"]
        return figures

    @torch.no_grad()
    def samples(self, model: LatentDiffusion) -> dict:
        noisy, clean = (x[:1] for x in self.valid)
        drawn = model.sample(noisy, 1, noise=FrameNoise(2))
        return {
            name: self.codec.decode(z)[0].cpu() for name, z in (("noisy", noisy), ("clean", clean), ("denoised", drawn))
        }


def prepare(
    codec: Codec,
    material: Material,
    recipe: Degradation,
    seconds: float,
    hours: float,
    seed: int = 0,
    cutting: bool = False,
):
    """Latents to train on (`hours` of them) and to validate on, from the cache or encoded now."""
    sr = codec.sr
    if material.recorded:
        recipe = Degradation(snr=None, dropout=0.5 if cutting else 0.0)
    speech, noise = Clips(material.speech, sr), None if material.recorded else Clips(material.noise, sr)
    train = build(codec, speech, noise, recipe, max(1, round(hours * 3600 / seconds)), seconds, seed)
    valid_recipe = Degradation(snr=None) if material.recorded else VALID
    held = Clips(material.valid_speech, sr), None if material.recorded else Clips(material.valid_noise, sr)
    return train, build(codec, *held, valid_recipe, 64, seconds, seed, valid=True)


def run(
    preset: Preset,
    codec: Codec,
    material: Material,
    plan: Plan,
    folder,
    batch: int = 16,
    seconds: float = 1.5,
    hours: float = 20.0,
    cutting: bool = False,
    decoded: float = 0.0,
    start: str | None = None,
    progress: bool = True,
    half: bool = True,
) -> dict:
    """Train the diffusion in `folder`, or go on where it stopped; the result is in best.pt. Returns what `train.fit` does.

    `start`: weights to begin with, of the same size."""
    device = parallel.begin()
    codec = codec.to(device)
    train, valid = parallel.in_turn(lambda: prepare(codec, material, RECIPE, 4.0, hours, plan.seed, cutting))
    task = DiffusionTask(preset, codec, train, valid, device, plan.seed, half, decoded)
    if start:
        adopt(task.networks["model"].unet, load(start, LatentDiffusion).unet, start)
    frames = min(codec.frames(round(seconds * codec.sr)), train.clean.shape[2])

    def stream(first: int):
        return (train.batch(step, batch, frames, plan.seed) for step in count(first))

    return train_to_weights(task, stream, plan, folder, f"{preset.name}-diffusion", {"codec": codec}, progress)
