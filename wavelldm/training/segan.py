"""What training SEGAN means: critic first, then generator, least squares and L1, all on pre-emphasised sound."""

from dataclasses import replace

import torch

from ..codec.losses import stft_loss
from ..data.corpora import Material
from ..denoise.segan import Critic, Segan, SeganConfig, critic_loss, emphasise, generator_loss
from ..metrics.scores import validation_scores
from ..weights import load
from . import parallel
from .loop import Plan, adopt, fast_half, train_to_weights
from .mixtures import mixtures
from .presets import Preset

L1 = 100.0  # weight of the distance beside the critic's pull (paper, section 4.2)
LR, BETAS = 2e-4, (0.5, 0.9)  # momentum as GANs like it: critic and generator must not overshoot each other


def schedule(plan: Plan) -> Plan:
    """The same plan with this training's momentum."""
    return replace(plan, betas=BETAS)


class SeganTask:
    """Batches are (noisy, clean). The score is a multi-resolution STFT distance, as neither the critic nor L1 ranks what is heard."""

    def __init__(
        self, config: SeganConfig, valid: list, l1: float = L1, device="cpu", seed: int = 0, half: bool = True
    ):
        torch.manual_seed(seed)
        self.sr, self.valid, self.l1, self.device = config.sr, valid, l1, torch.device(device)
        self.half = half and fast_half(self.device)
        self.networks = {"model": Segan(config).to(device), "critic": Critic(config).to(device)}
        self.groups = {"critic": ["critic"], "generator": ["model"]}

    def losses(self, batch):
        net, critic = self.networks["model"], self.networks["critic"]
        noisy, clean = (emphasise(x.to(self.device), net.config.emphasis) for x in batch)  # (B, 1, N)
        z = net.draw(len(noisy) * parallel.world(), noisy.shape[-1])
        if z is not None:
            (z,) = (x.to(self.device) for x in parallel.share((z,)))
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)
        with half:
            made = net.generate(noisy, z).float()
            verdict = critic_loss(critic(noisy, clean).float(), critic(noisy, made.detach()).float())
        yield "critic", verdict, {}
        with half:
            parts = {"pull": generator_loss(critic(noisy, made).float()), "l1": (made - clean).abs().mean()}
        yield "generator", parts["pull"] + self.l1 * parts["l1"], {k: v.detach() for k, v in parts.items()}

    @torch.no_grad()
    def validate(self, model: Segan) -> dict:
        pairs = [(model(noisy.to(self.device)), clean.to(self.device)) for noisy, clean in self.valid]
        mean = lambda distance: sum(float(distance(*pair)) for pair in pairs) / len(pairs)
        emphasis = model.config.emphasis
        l1 = mean(lambda a, b: (emphasise(a, emphasis) - emphasise(b, emphasis)).abs().mean())
        heard = validation_scores(
            torch.cat([clean for _, clean in pairs]), torch.cat([cleaned for cleaned, _ in pairs]), self.sr
        )
        return {"score": mean(stft_loss), "valid_l1": l1, **{f"valid_{name}": value for name, value in heard.items()}}

    @torch.no_grad()
    def samples(self, model: Segan) -> dict:
        noisy, clean = (x[:1] for x in self.valid[0])
        return {"noisy": noisy[0], "clean": clean[0], "cleaned": model(noisy.to(self.device))[0].cpu()}


def run(
    preset: Preset,
    material: Material,
    plan: Plan,
    folder,
    batch: int = 8,
    seconds: float = 1.024,
    l1: float = L1,
    snr: tuple | None = None,
    start: str | None = None,
    workers: int = 0,
    progress: bool = True,
    half: bool = True,
) -> dict:
    """Train SEGAN in `folder`, or go on where it stopped; the result is in best.pt. Returns what `train.fit` does.

    `snr`: the range of decibels, on active speech, that noise is mixed at. `start`: weights of a generator to begin with."""
    device, config = parallel.begin(), preset.segan
    stream, valid = mixtures(material, config.sr, seconds, batch, plan.seed, workers, snr)
    task = SeganTask(config, valid, l1, device, plan.seed, half)
    if start:
        adopt(task.networks["model"], load(start, Segan), start)
    return train_to_weights(task, stream, plan, folder, f"{preset.name}-segan", progress=progress)
