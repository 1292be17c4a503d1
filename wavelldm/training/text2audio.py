"""How the diffusion that text steers is trained: v from noisy latents of captioned sounds, text withheld now and then.

The encoders are frozen: what a caption says was learnt beforehand (contrastive.py). A conditioner that learns along,
such as a bag of words, can be given instead, for comparison.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..diffusion.schedule import q_sample
from ..text.conditioned import Condition, TextDiffusion, TextDiffusionConfig
from ..text.contrastive import TextAudioPair
from ..text.latent import SoundVAE
from .captioned import Captioned
from .loop import Task
from .options import HalfOptions, option

AT_ONCE = 64


@dataclass(frozen=True)
class TextDiffusionOptions(HalfOptions):
    batch_size: int = option(32, "sounds in one step", least=1)
    half: bool = option(False, "compute in bfloat16 where that is faster")
    withheld: float = option(0.1, "share of sounds whose text is withheld", least=0)


class Frozen(nn.Module):
    """The condition that a trained (or untrained) pair's text encoder makes; it does not learn."""

    def __init__(self, pair: TextAudioPair):
        super().__init__()
        self.pair = [pair.eval()]  # in a list, so that it is not a part of this

    def tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        return self.pair[0].text.tokens(texts)

    @torch.no_grad()
    def forward(self, numbers: Tensor, real: Tensor) -> Condition:
        states, whole = self.pair[0].of_tokens(numbers, real)
        return states, real, whole


@torch.no_grad()
def latents_of(vae: SoundVAE, sounds: Captioned) -> Captioned:
    """The same sounds, as normalised latents (n, D, T) in half precision."""
    found = {
        frames: torch.cat([vae.normalise(vae.encode(part.float())[0]).half() for part in mels.split(AT_ONCE)])
        for frames, mels in sounds.mels.items()
    }
    return Captioned(found, sounds.about, sounds.new)


class TextDiffusionTask(Task):
    """Batches are (latent, tokens, which are real)."""

    network, Network, Options, uses_noise = "text_diffusion", TextDiffusion, TextDiffusionOptions, False

    def __init__(
        self,
        config: TextDiffusionConfig,
        conditioner: nn.Module,
        options: TextDiffusionOptions = TextDiffusionOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        super().__init__(options, device, seed)
        self.sr = 16_000
        self.conditioner = conditioner.to(self.device)
        self.networks = {"model": TextDiffusion(config).to(device)}
        if any(p.requires_grad for p in conditioner.parameters()):
            self.networks["conditioner"] = self.conditioner
        self.groups = {"diffusion": list(self.networks)}

    def read_latents(self, train: Captioned, valid: Captioned) -> "TextDiffusionTask":
        def ready(batch: tuple) -> tuple:
            z, words, _ = batch
            return z, *self.conditioner.tokens(words)

        self.with_data(
            lambda first: map(ready, train.batches(self.options.batch_size, self.seed, first)),
            [ready(batch) for batch in valid.in_order(64)],
        )
        return self

    def distance(
        self, model: TextDiffusion, batch: tuple, t: Tensor, eps: Tensor, withheld: Tensor | None = None
    ) -> Tensor:
        """Mean squared error of v at steps t (B,), with the text withheld where that is said."""
        z0, numbers, real = (x.to(self.device) for x in batch)
        condition = self.conditioner(numbers, real)
        if withheld is not None:
            condition = model.without(condition, withheld)
        z_t = q_sample(model.schedule, z0, t, eps)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            v = model(z_t, t, condition)
        a, s = model.schedule.at(t)
        return (v.float() - (a * eps - s * z0)).square().mean()

    def losses(self, batch: tuple) -> Iterator:
        model, z0 = self.networks["model"].train(), batch[0]
        t = torch.randint(0, model.schedule.steps, (len(z0),), device=self.device)
        withheld = torch.rand(len(z0), device=self.device) < self.options.withheld  # in training alone
        yield "diffusion", self.distance(model, batch, t, torch.randn(z0.shape, device=self.device), withheld), {}

    @torch.no_grad()
    def validate(self, model: TextDiffusion) -> dict:
        """The same loss on held-out sounds, always with their text, at steps and noises that never change; and without
        text, to see what the text is worth."""
        generator, rows = torch.Generator().manual_seed(3), []
        for batch in self.valid:
            z0 = batch[0]
            t = torch.linspace(20, model.schedule.steps - 1, len(z0)).long().to(self.device)
            eps = torch.randn(z0.shape, generator=generator).to(self.device)
            told = [None, torch.ones(len(z0), dtype=torch.bool, device=self.device)]
            rows.append([len(z0), *(len(z0) * float(self.distance(model, batch, t, eps, w)) for w in told)])
        count, told, silent = map(sum, zip(*rows))
        return {"score": told / count, "without_text": silent / count}
