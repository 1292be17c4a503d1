"""How SEGAN is trained: critic first, then generator, least squares and L1, all on pre-emphasised sound."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..codec.losses import stft_loss
from ..data.corpora import Corpus
from ..denoise.segan import Critic, Segan, SeganConfig, critic_loss, emphasise, generator_loss
from ..metrics.scores import validation_scores
from . import parallel
from .loop import Plan, Task
from .mixtures import mixtures
from .options import SNR, HalfOptions, option


@dataclass(frozen=True)
class SeganOptions(HalfOptions):
    seconds: float = option(1.024, "length of a crop", above=0)
    l1: float = option(100.0, "weight of the distance beside the critic's verdict (paper, section 4.2)", least=0)
    snr: tuple | None = option(None, SNR, float, metavar=("LOW", "HIGH"))


class SeganTask(Task):
    """Batches are (noisy, clean). The score is a multi-resolution STFT distance, as neither the critic nor L1 ranks
    how it sounds."""

    network, Network, Options = "segan", Segan, SeganOptions

    def __init__(
        self,
        config: SeganConfig,
        options: SeganOptions = SeganOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        super().__init__(options, device, seed)
        self.sr, self.l1 = config.sr, options.l1
        self.networks = {"model": Segan(config).to(device), "critic": Critic(config).to(device)}
        self.groups = {"critic": ["critic"], "generator": ["model"]}

    @classmethod
    def plan(cls, steps: int, **changes: Any) -> Plan:
        """With little momentum, as GANs like it: critic and generator must not overshoot each other."""
        return super().plan(steps, **{"lr": 2e-4, "betas": (0.5, 0.9)} | changes)

    def read(self, corpus: Corpus) -> None:
        o = self.options
        self.reads_share = True
        self.batches, self.valid = mixtures(corpus, self.sr, o.seconds, o.batch_size, self.seed, o.num_workers, o.snr)

    def losses(self, batch: tuple) -> Iterator:
        net, critic = self.networks["model"], self.networks["critic"]
        noisy, clean = (emphasise(x.to(self.device), net.config.emphasis) for x in batch)  # (B, 1, N)
        z = net.draw(len(noisy) * parallel.parts()[1], noisy.shape[-1])
        if z is not None:
            (z,) = (x.to(self.device) for x in parallel.share((z,)))
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)
        with half:
            made = net.generate(noisy, z).float()
            verdict = critic_loss(critic(noisy, clean).float(), critic(noisy, made.detach()).float())
        yield "critic", verdict, {}
        with half:
            parts = {"adversarial": generator_loss(critic(noisy, made).float()), "l1": (made - clean).abs().mean()}
        yield "generator", parts["adversarial"] + self.l1 * parts["l1"], {k: v.detach() for k, v in parts.items()}

    @torch.no_grad()
    def validate(self, model: Segan) -> dict:
        pairs = [(model(noisy.to(self.device)), clean.to(self.device)) for noisy, clean in self.valid]
        emphasis, count = model.config.emphasis, len(pairs)
        l1 = sum(float((emphasise(a, emphasis) - emphasise(b, emphasis)).abs().mean()) for a, b in pairs) / count
        spectral = sum(float(stft_loss(a, b)) for a, b in pairs) / count
        scores = validation_scores(
            torch.cat([clean for _, clean in pairs]), torch.cat([cleaned for cleaned, _ in pairs]), self.sr
        )
        return {"score": spectral, "valid_l1": l1, **{f"valid_{name}": value for name, value in scores.items()}}

    @torch.no_grad()
    def samples(self, model: Segan) -> dict:
        noisy, clean = (x[:1] for x in self.valid[0])
        return {"noisy": noisy[0], "clean": clean[0], "cleaned": model(noisy.to(self.device))[0].cpu()}
