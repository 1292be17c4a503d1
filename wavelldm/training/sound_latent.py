"""How the latent of sounds is trained: a VAE on log-mels (arXiv 1312.6114, eq. 10), absolute error and a little KL."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..mel.vae import kl, reparameterise
from ..text.latent import SoundVAE, SoundVAEConfig
from .captioned import Captioned
from .loop import Task
from .options import HalfOptions, option

MEASURED = 40  # batches over which the latents' mean and deviation are averaged


@dataclass(frozen=True)
class SoundVAEOptions(HalfOptions):
    batch_size: int = option(16, "sounds in one step", least=1)
    frozen: bool = option(False, "only the decoder learns, so that what was made of the latent stays valid")


class SoundVAETask(Task):
    """Batches are (log-mel,)."""

    network, Network, Options, uses_noise = "sound_latent", SoundVAE, SoundVAEOptions, False

    def __init__(
        self,
        config: SoundVAEConfig,
        options: SoundVAEOptions = SoundVAEOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        super().__init__(options, device, seed)
        self.sr = config.mel.sr
        self.networks, self.groups = {"model": SoundVAE(config).to(device)}, {"vae": ["model"]}
        self.networks["model"].encoder.requires_grad_(not options.frozen)

    def read_captioned(self, train: Captioned, valid: Captioned) -> "SoundVAETask":
        size = self.options.batch_size
        self.with_data(
            lambda first: ((mel,) for mel, _, _ in train.batches(size, self.seed, first)),
            [(mel,) for mel, _, _ in valid.in_order(16)],
        )
        return self

    def losses(self, batch: tuple) -> Iterator:
        model = self.networks["model"]
        log_mel = batch[0].to(self.device)  # (B, M, F)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            mean, spread = model.encode(log_mel)
            drawn = model.decode(reparameterise(mean, spread))[..., : log_mel.shape[-1]]
        away, mean, spread = (drawn.float() - log_mel).abs(), mean.float(), spread.float()
        loud = (1 + (log_mel + 9).clamp(0, 6) / 3).mean((1, 2), keepdim=True)  # what can be heard counts more
        far = (away * (1 + (log_mel + 9).clamp(0, 6) / 3) / loud).mean()
        rate = kl(mean, spread)
        yield "vae", far + model.config.kl * rate, {"far": far.detach(), "kl": rate.detach()}

    @torch.no_grad()
    def validate(self, model: SoundVAE) -> dict:
        """Mean absolute error of log-mels in nepers; also measures how large latents are."""
        rows = [self.distance(model, mel.to(self.device)) for (mel,) in self.valid]
        latents = torch.cat(
            [model.encode(mel.to(self.device))[0].transpose(0, 1).flatten(1) for (mel,) in self.valid], 1
        )
        for net in {model, self.networks["model"]}:
            net.middle.copy_(latents.mean(1, keepdim=True))
            net.spread.copy_(latents.std(1, keepdim=True).clamp_min(1e-3))
        return {"score": sum(rows) / len(rows)}

    def distance(self, model: SoundVAE, log_mel: Tensor) -> float:
        return float((model.decode(model.encode(log_mel)[0])[..., : log_mel.shape[-1]] - log_mel).abs().mean())
