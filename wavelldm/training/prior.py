"""What training the speech prior means: noise on the spectra of clean speech, the network's guess at it, squared error (DDPM, eq. 14)."""

from itertools import islice

import torch
from torch import Tensor

from ..data.clips import Clips
from ..data.corpora import Material
from ..data.degrade import Degradation
from ..data.loader import batches, valid_pairs
from ..refine.prior import NOMINAL_DB, PriorConfig, SpeechPrior
from ..weights import load
from . import parallel
from .loop import Plan, adopt, fast_half, train_to_weights
from .presets import Preset

RECIPE = Degradation(
    noise=0.0, level=1.0, level_db=(NOMINAL_DB - 10, NOMINAL_DB + 6)
)  # within one recording levels differ as much
NOMINAL = Degradation(noise=0.0, level=1.0, level_db=(NOMINAL_DB, NOMINAL_DB))
LEVELS = 8  # steps t at which each validation item is looked at
MEASURED = 32  # batches from which the deviations are taken


class PriorTask:
    """Batches are (clean wav (B, 1, N),); whatever comes before it, such as a noisy twin, is not looked at."""

    def __init__(
        self, config: PriorConfig, valid: list, deviation: Tensor, device="cpu", seed: int = 0, half: bool = True
    ):
        torch.manual_seed(seed)
        self.sr, self.valid, self.device = config.sr, valid, torch.device(device)
        self.half = half and fast_half(self.device)
        model = SpeechPrior(config).to(device)
        model.measure(deviation.to(device))
        self.networks, self.groups = {"model": model}, {"prior": ["model"]}

    def error(self, model: SpeechPrior, wav: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Mean squared error (B,) of what the network predicts of wav (B, 1, N) at step t (B,) with noise eps (B, 2, bins, T)."""
        x0, predicts = model.spectrum(wav[:, 0]), model.config.predicts
        x_t = model.noised(x0, t, eps)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            guess = model.unet(x_t, t)
        wanted = eps if predicts == "eps" else model.convert(x0, x_t, t, "z0", predicts)
        return (guess.float() - wanted).square().mean((1, 2, 3))

    def losses(self, batch):
        wav, model = batch[-1].to(self.device), self.networks["model"]  # (B, 1, N)
        everybody, frames = len(wav) * parallel.world(), -(-wav.shape[-1] // model.config.hop)
        drawn = torch.randint(model.schedule.steps, (everybody,)), torch.randn(everybody, 2, model.config.bins, frames)
        t, eps = (x.to(self.device) for x in parallel.share(drawn))
        yield "prior", self.error(model, wav, t, eps).mean(), {}

    @torch.no_grad()
    def validate(self, model: SpeechPrior) -> dict:
        """The training loss at fixed steps and noises: the mean, and where little and where much of the sound is left."""
        generator, rows = torch.Generator().manual_seed(1), []
        for pair in self.valid:
            wav = pair[-1].to(self.device)
            frames = -(-wav.shape[-1] // model.config.hop)
            for k in range(LEVELS):
                t = torch.full((len(wav),), round((model.schedule.steps - 1) * (k + 0.5) / LEVELS), device=self.device)
                eps = torch.randn(len(wav), 2, model.config.bins, frames, generator=generator).to(self.device)
                rows.append(self.error(model, wav, t, eps).mean())
        levels = torch.stack(rows).reshape(-1, LEVELS).mean(0)  # from nearly clean to noise
        return {"score": float(levels.mean()), "at_begin": float(levels[0]), "at_end": float(levels[-1])}

    @torch.no_grad()
    def samples(self, model: SpeechPrior) -> dict:
        return {"clean": self.valid[0][-1][0].cpu(), "drawn": model.sample(1, 125, 25).cpu()}


def deviations(config: PriorConfig, pairs) -> Tensor:
    """The deviation of each bin (bins,) of real and imaginary part over batches whose last part is clean wav (B, 1, N)."""
    plain, total, count = SpeechPrior(config), 0.0, 0
    for pair in pairs:
        spec = plain.spectrum(pair[-1][:, 0]).double()  # (B, 2, bins, T)
        total, count = total + spec.square().mean(1).sum((0, 2)), count + len(spec) * spec.shape[-1]
    return (total / count).sqrt().float()


def run(
    preset: Preset,
    material: Material,
    plan: Plan,
    folder,
    batch: int = 8,
    seconds: float = 1.024,
    start: str | None = None,
    workers: int = 0,
    progress: bool = True,
    half: bool = True,
) -> dict:
    """Train the prior in `folder`, or go on where it stopped; noise files and noisy twins are not looked at. Returns what `train.fit` does.

    `start`: weights to begin with, of the same size."""
    device, c = parallel.begin(), preset.prior
    speech = Clips(material.speech, c.sr)

    def stream(first: int, recipe: Degradation = RECIPE, size: int = batch, workers: int = workers):
        return batches(speech, None, recipe, c.sr, seconds, size, plan.seed, workers, first)

    valid = valid_pairs(material.valid_speech, None, RECIPE, c.sr, 2 * seconds, 8, count=32)
    deviation = deviations(c, islice(stream(0, NOMINAL, 16, 0), MEASURED))
    task = PriorTask(c, valid, deviation, device, plan.seed, half)
    if start:
        adopt(task.networks["model"], load(start, SpeechPrior), start)
    return train_to_weights(task, stream, plan, folder, f"{preset.name}-prior", progress=progress)
