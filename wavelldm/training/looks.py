"""How the encoder's looks are trained: codec frozen, the loss after each look, its gradient taken once for two ends:
the next look sees it, and the looks before it learn from it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ..codec.fsq import random_keep
from ..codec.look import Looks, LooksConfig
from ..codec.losses import PULSE_WEIGHTS
from ..codec.model import Codec
from ..codec.pulse import TABLE
from ..config import override
from ..data.clips import Clips
from ..data.corpora import Corpus
from ..data.degrade import Degradation
from ..data.loader import batches, valid_pairs
from ..weights import load
from . import parallel
from .codec import DROPPED
from .loop import Task
from .options import Options, option
from .presets import Preset

RECIPE = Degradation(noise=0.0, snr=None, level=1.0)
HELD_OUT, VALID_BATCH = 24, 8  # crops to validate on


@dataclass(frozen=True)
class LooksOptions(Options):
    batch_size: int = option(4, "crops in one step, over all processes", least=1)
    seconds: float = option(1.024, "length of a crop", above=0)
    codec: str = option("voice16k", "weights of the codec, by name or path", metavar="WEIGHTS")


class LooksTask(Task):
    """Batches end with clean wav (B, 1, N); whatever comes before it, such as a noisy twin, is not looked at."""

    network, Network, Options, preset, uses_noise = "looks", Looks, LooksOptions, "voice16k", False

    def __init__(
        self,
        config: LooksConfig,
        codec: Codec,
        options: LooksOptions = LooksOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        super().__init__(options, device, seed)
        self.sr, self.codec = codec.sr, codec.to(device).eval().requires_grad_(False)
        self.networks, self.groups = {"model": Looks(config).to(device)}, {"looks": ["model"]}
        self.needs = {"codec": codec}

    @classmethod
    def create(
        cls,
        preset: Preset,
        changes: list[str],
        options: LooksOptions,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> "LooksTask":
        codec = load(options.codec, Codec, device)
        c = codec.config
        fitting = replace(preset.looks, latent_dim=c.latent_dim, mels=c.mel.n_mels, numbers=c.groups * len(c.levels))
        return cls(override(fitting, changes), codec, options, device, seed)

    def read(self, corpus: Corpus) -> None:
        o = self.options

        def decode() -> tuple[Clips, list]:
            held = corpus.valid_speech, None, RECIPE, self.sr, o.seconds, VALID_BATCH
            return Clips(corpus.speech, self.sr), valid_pairs(*held, count=HELD_OUT)

        speech, self.valid = parallel.in_turn(decode)
        self.reads_share, share = True, parallel.place()
        self.batches = lambda first: batches(
            speech, None, RECIPE, self.sr, o.seconds, o.batch_size, self.seed, o.num_workers, first, share=share
        )

    def losses(self, batch: tuple) -> Iterator:
        wav, looks = batch[-1].to(self.device), self.networks["model"]  # (B, 1, N)
        whole_batch = len(wav) * parallel.parts()[1]
        drawn = (
            random_keep(whole_batch, self.codec.quantiser.codebooks, DROPPED),
            torch.randint(TABLE, (whole_batch, 1)),
        )
        keep, number = parallel.share(drawn)
        number = (number + torch.arange(self.codec.frames(wav.shape[-1]))).to(self.device)
        total, figures, count = 0.0, {}, looks.config.looks
        for i, heard in enumerate(looks(self.codec, wav, keep, number, heard=True)):
            if i > 0:  # the gradient of the loss itself, with respect to the looks' weights
                total = total + i / count * (heard.gradient * heard.u).sum()  # the last one counts most
            figures[f"after_{i}"] = _weighed(heard.parts)
        yield "looks", total, figures

    @torch.no_grad()
    def validate(self, model: Looks) -> dict:
        """The loss without its pitch after each look, on held-out crops."""
        rows = []
        for pair in self.valid:
            wav = pair[-1].to(self.device)
            number = torch.arange(self.codec.frames(wav.shape[-1]), device=self.device)
            rows.append([float(_weighed(heard.parts)) for heard in model(self.codec, wav, None, number, heard=True)])
        means = [sum(column) / len(rows) for column in zip(*rows)]
        return {"score": means[-1], **{f"valid_after_{i}": mean for i, mean in enumerate(means)}}

    @torch.no_grad()
    def samples(self, model: Looks) -> dict:
        wav = self.valid[0][-1][:1].to(self.device)
        codes = self.codec.quantiser.rounded(model.numbers(self.codec, wav))[1]
        return {"original": wav[0].cpu(), "decoded": self.codec.codes_to_wav(codes, wav.shape[-1])[0].cpu()}


def _weighed(parts: dict) -> torch.Tensor:
    return sum(weight * parts[name] for name, weight in PULSE_WEIGHTS.items() if name != "pitch")
