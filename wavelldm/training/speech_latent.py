"""How the latent for generating is trained: magnitudes in, magnitudes out, and a bounded rate between them (VAE, arXiv
1312.6114, eq. 10)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.clips import Clips
from ..data.corpora import Corpus
from ..data.degrade import Degradation
from ..data.loader import batches, valid_pairs
from ..restore.latent import FLOOR, KBITS, SpeechLatent, SpeechLatentConfig, heard_pitch, level, seen
from . import parallel
from .loop import Task
from .options import HalfOptions, option

RECIPE = Degradation(noise=0.0)
LEVELS_DB = (-10.0, 10.0)  # around the level that the latent knows
SPANS, LEAST = 0.2, 4  # share of items of which only the first channels are kept, and how many those are at least
VOICELESS = 0.05  # share of items that are drawn without their pitch
SLIPS = 0.003  # octaves by which pitches are wrong
MEASURED, MEASURED_SIZE = 25, 16  # batches that the principal components come from, and crops in each
HELD_OUT, VALID_BATCH = 16, 8


@dataclass(frozen=True)
class SpeechLatentOptions(HalfOptions):
    batch_size: int = option(12, "crops in one step, over all processes", least=1)
    seconds: float = option(2.048, "length of a crop", above=0)
    frozen: bool = option(False, "only the decoder learns, so that what was made of the latent stays valid")


class SpeechLatentTask(Task):
    """Batches end with clean wav (B, 1, N)."""

    network, Network, Options, uses_noise = "latent", SpeechLatent, SpeechLatentOptions, False

    def __init__(
        self,
        config: SpeechLatentConfig,
        options: SpeechLatentOptions = SpeechLatentOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        super().__init__(options, device, seed)
        self.sr = 16_000
        model = SpeechLatent(config).to(device)
        self.networks, self.groups = {"model": model}, {"latent": ["model"]}
        self.started = False  # with weights of its own
        self.log_beta = math.log(3e-4)  # weight of the rate, see `turned`

    def start_from(self, name: str) -> None:
        super().start_from(name)
        self.started = True

    def read(self, corpus: Corpus) -> None:
        o = self.options

        def decode() -> tuple[Clips, list]:
            held = corpus.valid_speech, None, RECIPE, self.sr, o.seconds, VALID_BATCH
            return Clips(corpus.speech, self.sr), valid_pairs(*held, count=HELD_OUT)

        speech, valid = parallel.in_turn(decode)
        first = batches(speech, None, RECIPE, self.sr, o.seconds, MEASURED_SIZE, self.seed)
        self.begin([next(first)[-1] for _ in range(1 if self.started else MEASURED)])
        self.reads_share, share = True, parallel.place()
        self.with_data(
            lambda step: batches(
                speech, None, RECIPE, self.sr, o.seconds, o.batch_size, self.seed, o.num_workers, step, share=share
            ),
            valid,
        )

    def begin(self, wavs: list[Tensor]) -> "SpeechLatentTask":
        """Start from the principal components of clean speech [(B, 1, N)], unless weights are there already; then say
        which parts learn."""
        model = self.networks["model"]
        if not self.started:
            wav = torch.cat(wavs)[:, 0].to(self.device)
            model.begin(seen(wav * level(wav)))
        if self.options.frozen:
            model.encoder.requires_grad_(False), model.decoder.read.requires_grad_(False)
        return self

    def turned(self, kbits: float) -> float:
        """The weight of the rate: it rises while the rate is over what was asked for, and falls below."""
        if parallel.TURN.get()[0] > 0:  # once a step
            return math.exp(self.log_beta)
        wanted = self.networks["model"].config.kbits
        self.log_beta += 0.01 * max(-1.0, min(1.0, math.log(max(kbits, 0.01) / wanted)))
        self.log_beta = max(math.log(1e-6), min(math.log(1e-1), self.log_beta))
        return math.exp(self.log_beta)

    def losses(self, batch: tuple) -> Iterator:
        model = self.networks["model"]
        wav = batch[-1][:, 0].to(self.device)  # (B, N)
        (drawn,) = parallel.share((torch.rand(len(wav) * parallel.parts()[1], 4),))
        louder, voiceless, nested, cut = drawn.to(wav).T
        db = LEVELS_DB[0] + (LEVELS_DB[1] - LEVELS_DB[0]) * louder[:, None]
        pitch = heard_pitch(wav)
        size = seen(wav * level(wav) * 10 ** (db / 20))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            mean, spread = model.encode(size)
            z = mean + torch.randn_like(mean) * (0.5 * spread).exp()
            kept = torch.where(nested < SPANS, LEAST + cut * (z.shape[1] - LEAST), z.shape[1]).to(z)
            z = z * (torch.arange(z.shape[1], device=z.device) < kept[:, None])[..., None]
            voiced = (pitch[:, 0] >= 0) & (voiceless[:, None] >= VOICELESS)
            octaves = torch.where(voiced, pitch[:, 0] + SLIPS * torch.randn_like(pitch[:, :1, 0]), -1.0)
            drawn = model.decode(z, torch.stack([octaves, pitch[:, 1]], 1))
        far, parts = apart(model, drawn, size)
        rate = divergence(mean, spread)
        kbits = float(parallel.mean_of_all(rate)) * KBITS
        yield "latent", far + self.turned(kbits) * rate, {**parts, "far": far.detach(), "kbits": kbits}

    @torch.no_grad()
    def validate(self, model: SpeechLatent) -> dict:
        """How far what is drawn from latents at their rate lies from the truth, and the rate."""
        generator, rows = torch.Generator().manual_seed(1), []
        for pair in self.valid:
            wav = pair[-1][:, 0].to(self.device)
            size = seen(wav * level(wav))
            mean, spread = model.encode(size)
            z = mean + torch.randn(mean.shape, generator=generator).to(mean) * (0.5 * spread).exp()
            far, parts = apart(model, model.decode(z, heard_pitch(wav)), size)
            rows.append([far, *parts.values(), divergence(mean, spread) * KBITS])
        score, loud, mel, log, kbits = torch.tensor(rows).mean(0).tolist()
        return {"score": score, "loud": loud, "mel": mel, "log": log, "kbits": kbits}


def divergence(mean: Tensor, spread: Tensor) -> Tensor:
    """KL to a standard normal, in nats a frame, from mean and logarithm of the variance (B, size, T)."""
    return 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1).mean()


def apart(model: SpeechLatent, drawn: Tensor, size: Tensor) -> tuple[Tensor, dict]:
    """How far drawn logarithms of magnitudes (B, 513, T) lie from the right magnitudes: as loudness, as log-mel, and as
    logarithms."""
    ours = drawn.float().clamp(max=6).exp()
    loud = ((ours + 1e-4) ** 0.3 - (size + 1e-4) ** 0.3).abs().mean()
    mel = (model.mel(ours) - model.mel(size)).abs().mean()
    log = (ours.clamp_min(3 * FLOOR).log() - size.clamp_min(3 * FLOOR).log()).abs().mean()
    return 2 * loud + 0.5 * mel + 0.1 * log, {"loud": loud.detach(), "mel": mel.detach(), "log": log.detach()}
