"""How the speech prior is trained: noise on the spectra of clean speech, the network's guess at it, squared error
(DDPM, eq. 14)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from ..data.clips import Clips
from ..data.corpora import Corpus
from ..data.degrade import Degradation
from ..data.loader import batches, valid_pairs
from ..refine.prior import NOMINAL_DB, PriorConfig, SpeechPrior
from . import parallel
from .loop import Task
from .options import HalfOptions, option

RECIPE = Degradation(
    noise=0.0, level=1.0, level_db=(NOMINAL_DB - 10, NOMINAL_DB + 6)
)  # within one recording levels differ as much
NOMINAL = Degradation(noise=0.0, level=1.0, level_db=(NOMINAL_DB, NOMINAL_DB))
LEVELS = 8  # steps t at which each validation item is looked at
MEASURED, MEASURED_SIZE = 32, 16  # batches from which the deviations are taken, and crops in each
HELD_OUT, VALID_BATCH = 32, 8  # crops to validate on, twice as long as those to train on


@dataclass(frozen=True)
class PriorOptions(HalfOptions):
    seconds: float = option(1.024, "length of a crop", above=0)


class PriorTask(Task):
    """Batches end with clean wav (B, 1, N); whatever comes before it, such as a noisy twin, is not looked at."""

    network, Network, Options, uses_noise = "prior", SpeechPrior, PriorOptions, False

    def __init__(
        self,
        config: PriorConfig,
        options: PriorOptions = PriorOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        super().__init__(options, device, seed)
        self.sr = config.sr
        self.networks, self.groups = {"model": SpeechPrior(config).to(device)}, {"prior": ["model"]}

    def measure(self, pairs: Iterable) -> "PriorTask":
        """Take the deviations that spectra are scaled by from batches of clean speech at its nominal level."""
        model = self.networks["model"]
        model.measure(deviations(model.config, pairs).to(self.device))
        return self

    def read(self, corpus: Corpus) -> None:
        o = self.options

        def decode() -> tuple[Clips, list]:
            held = corpus.valid_speech, None, RECIPE, self.sr, 2 * o.seconds, VALID_BATCH
            return Clips(corpus.speech, self.sr), valid_pairs(*held, count=HELD_OUT)

        speech, self.valid = parallel.in_turn(decode)
        nominal = batches(speech, None, NOMINAL, self.sr, o.seconds, MEASURED_SIZE, self.seed)
        self.measure(islice(nominal, MEASURED))
        self.reads_share, share = True, parallel.place()
        self.batches = lambda first: batches(
            speech, None, RECIPE, self.sr, o.seconds, o.batch_size, self.seed, o.num_workers, first, share=share
        )

    def error(self, model: SpeechPrior, wav: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Mean squared error (B,) of what the network predicts of wav (B, 1, N) at step t (B,) with noise eps (B, 2,
        bins, T)."""
        x0, predicts = model.spectrum(wav[:, 0]), model.config.predicts
        x_t = model.noised(x0, t, eps)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            guess = model.unet(x_t, t)
        wanted = eps if predicts == "eps" else model.convert(x0, x_t, t, "z0", predicts)
        return (guess.float() - wanted).square().mean((1, 2, 3))

    def losses(self, batch: tuple) -> Iterator:
        wav, model = batch[-1].to(self.device), self.networks["model"]  # (B, 1, N)
        whole_batch, frames = len(wav) * parallel.parts()[1], -(-wav.shape[-1] // model.config.hop)
        drawn = (
            torch.randint(model.schedule.steps, (whole_batch,)),
            torch.randn(whole_batch, 2, model.config.bins, frames),
        )
        t, eps = (x.to(self.device) for x in parallel.share(drawn))
        yield "prior", self.error(model, wav, t, eps).mean(), {}

    @torch.no_grad()
    def validate(self, model: SpeechPrior) -> dict:
        """The training loss at fixed steps and noises: the mean, with little noise, and with little sound."""
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


def deviations(config: PriorConfig, pairs: Iterable) -> Tensor:
    """The deviation of real and imaginary part of each bin (bins,) over batches that end with clean wav (B, 1, N)."""
    plain, total, count = SpeechPrior(config), 0.0, 0
    for pair in pairs:
        spec = plain.spectrum(pair[-1][:, 0]).double()  # (B, 2, bins, T)
        total, count = total + spec.square().mean(1).sum((0, 2)), count + len(spec) * spec.shape[-1]
    return (total / count).sqrt().float()
