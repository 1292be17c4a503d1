"""How the ladder's networks are trained: vocoder, mel VAE, refinement of its mels, and the autoencoder that keeps
phase.

One base class for all four: each says what the parts of its loss are. Batches are (wav, which item each crop is of).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..audio.mel import MelConfig, bank_of
from ..audio.stft import istft, stft
from ..codec.losses import stft_loss
from ..codec.model import Codec
from ..config import override
from ..data.clips import Clips
from ..data.corpora import Corpus
from ..errors import WavelldmError
from ..ladder.autoencoder import Autoencoder, AutoencoderConfig
from ..ladder.refinement import Refinement, RefinementConfig, edges
from ..mel.vae import MelVAE, VAEConfig, kl, reparameterise, words_of
from ..mel.vocoder import Vocoder, VocoderConfig
from ..weights import load
from . import parallel
from .loop import Task
from .options import Options, option
from .presets import Preset

WITHHELD = 0.2  # share of items whose words are withheld in training
HELD_OUT = 48  # crops to validate on


class _Steps(Dataset):
    """steps[k]: the k-th batch, wav (B, 1, n) and the index of each crop's item (B,), from (seed, k) alone."""

    def __init__(self, clips: Clips, seconds: float, batch: int, seed: int):
        self.clips, self.n, self.batch, self.seed = clips, round(seconds * clips.sr), batch, seed

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        which = [self.clips.draw(rng) for _ in range(self.batch)]
        wavs = [self.clips.crop(self.n, rng, i, loop=True)[:1] for i in which]
        return torch.stack(wavs), torch.tensor(which)


def crops(
    clips: Clips, seconds: float, batch: int, seed: int, workers: int = 0, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of wav (B, 1, n) and the index of each crop's item (B,), from step `first` on."""
    own = torch.Generator().manual_seed(seed)  # or the loader would draw from the global one
    steps = _Steps(clips, seconds, batch, seed)
    yield from DataLoader(steps, batch_size=None, sampler=range(first, 1 << 60), num_workers=workers, generator=own)


def held_out(clips: Clips, seconds: float, batch: int, number: int = HELD_OUT) -> list:
    """The same crops each time, from as many files as there are."""
    n, rng = round(seconds * clips.sr), np.random.default_rng(0)
    which = [int(clips.audible[k % len(clips.audible)]) for k in range(number)]
    pairs = [(clips.crop(n, rng, i, loop=True)[:1], i) for i in which]
    return [
        (torch.stack([w for w, _ in pairs[i : i + batch]]), torch.tensor([k for _, k in pairs[i : i + batch]]))
        for i in range(0, number, batch)
    ]


class LadderTask(Task):
    """What the four have in common; `parts` is what they differ in."""

    preset, uses_noise = "ladder", False

    def __init__(self, config: Any, options: Any, device: torch.device | str = "cpu", seed: int = 0):
        super().__init__(options, device, seed)
        self.networks = {"model": self.Network(config).to(device)}
        self.groups = {self.network: ["model"]}
        self.sr = self.rate(config)

    def rate(self, config: Any) -> int:
        """The sample rate it works at."""
        return config.mel.sr

    def items(self, corpus: Corpus) -> tuple[list, list]:
        """What to train on and what to validate on."""
        return corpus.speech, corpus.valid_speech

    def read(self, corpus: Corpus) -> None:
        o = self.options
        train, held = parallel.in_turn(lambda: [Clips(items, self.sr) for items in self.items(corpus)])
        self.valid = held_out(held, o.seconds, o.batch_size)
        self.batches = lambda first: crops(train, o.seconds, o.batch_size, self.seed, o.num_workers, first)

    def parts(self, net: nn.Module, wav: Tensor, which: Tensor) -> dict[str, Tensor]:
        """The parts of the loss of wav (B, 1, N); what is drawn at random is so only if the network trains."""
        raise NotImplementedError

    def losses(self, batch: tuple) -> Iterator:
        wav, which = batch
        parts = self.parts(self.networks["model"].train(), wav.to(self.device), which)
        yield self.network, sum(parts.values()), {k: v.detach() for k, v in parts.items()}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict:
        """The parts of the loss on held-out crops."""
        rows = [self.parts(model.eval(), wav.to(self.device), which) for wav, which in self.valid]
        means = {f"valid_{k}": sum(float(row[k]) for row in rows) / len(rows) for k in rows[0]}
        return {"score": sum(means.values()), **means}

    @torch.no_grad()
    def samples(self, model: nn.Module) -> dict:
        wav = self.valid[0][0][:1].to(self.device)
        return {"original": wav[0].cpu(), **{name: x[0].cpu() for name, x in self.decoded(model, wav).items()}}

    def decoded(self, model: nn.Module, wav: Tensor) -> dict[str, Tensor]:
        """What the network makes of wav (1, 1, N), if that is sound."""
        return {}


@dataclass(frozen=True)
class VocoderOptions(Options):
    seconds: float = option(1.0, "length of a crop", above=0)


class VocoderTask(LadderTask):
    network, Network, Options = "vocoder", Vocoder, VocoderOptions

    def __init__(
        self,
        config: VocoderConfig,
        options: VocoderOptions = VocoderOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        super().__init__(config, options, device, seed)

    def parts(self, net: Vocoder, wav: Tensor, which: Tensor) -> dict[str, Tensor]:
        parts = net.distances(wav)
        return {"bins": 10 * parts["bins"], "bands": 0.3 * parts["bands"]}

    def decoded(self, model: Vocoder, wav: Tensor) -> dict[str, Tensor]:
        return {"decoded": model(model.mel(wav, self.sr), wav.shape[-1])}


@dataclass(frozen=True)
class VAEOptions(Options):
    seconds: float = option(1.28, "length of a crop", above=0)
    codec: str | None = option(
        None,
        "the codec whose features are compared, where the config weighs them (voice16k if none is named)",
        str,
        metavar="WEIGHTS",
    )


class VAETask(LadderTask):
    """`codec`: one that listens to the sound of the mels, if the config weighs that. A VAE that takes words is told
    those of the items; `words` are theirs, for training and for validation."""

    network, Network, Options = "vae", MelVAE, VAEOptions

    def __init__(
        self,
        config: VAEConfig,
        options: VAEOptions = VAEOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
        codec: Codec | None = None,
        words: tuple[list, list] = ((), ()),
    ):
        super().__init__(config, options, device, seed)
        self.worded, self.words = config.words > 0, words
        self.codec = codec.to(device).eval().requires_grad_(False) if codec is not None else None
        if codec is not None and codec.sr != self.sr:
            raise WavelldmError(
                f"this codec works at {codec.sr} Hz, the mels are of {self.sr} Hz; choose another --codec"
            )

    @classmethod
    def create(
        cls, preset: Preset, changes: list[str], options: VAEOptions, device: torch.device | str = "cpu", seed: int = 0
    ) -> "VAETask":
        config = override(preset.vae, changes)
        if options.codec and not config.features:
            raise WavelldmError("this VAE has no loss on a codec's features; --set features=1, or leave --codec out")
        codec = load(options.codec or "voice16k", Codec, device) if config.features else None
        return cls(config, options, device, seed, codec)

    def items(self, corpus: Corpus) -> tuple[list, list]:
        """A VAE that takes words learns noises, too: they have names."""
        found = corpus.speech, corpus.valid_speech
        if self.worded and corpus.noise:
            found = corpus.speech + corpus.noise, corpus.valid_speech + corpus.valid_noise
        self.words = tuple([words_of(item) for item in items] for items in found)
        return found

    def parts(self, net: MelVAE, wav: Tensor, which: Tensor) -> dict[str, Tensor]:
        """L1 and squared error of the mel, KL, and, where the config weighs them, distances of the sound and of a
        codec's features of it."""
        c, m, texts = net.config, net.config.mel, None
        if self.worded:
            hidden = torch.rand(len(which)) < WITHHELD if net.training else torch.zeros(len(which))
            texts = ["" if h else self.words[not net.training][int(i)] for i, h in zip(which, hidden)]
        mel = net.mel(wav, m.sr)
        mean, logvar = net.encode(mel)
        ours = net.decode(reparameterise(mean, logvar) if net.training else mean, mel.shape[-1], texts)
        error = (ours - mel) / c.scale
        parts = {"mel": error.abs().mean() + error.square().mean(), "kl": c.kl * kl(mean, logvar)}
        if c.stft or self.codec is not None:
            sound = with_phase_of(wav, ours, mel, m)
        if c.stft:
            parts["stft"] = c.stft * stft_loss(sound, wav)
        if self.codec is not None:
            with torch.no_grad():
                wanted = self.codec.encode(wav, m.sr)
            error = (self.codec.encode(sound, m.sr) - wanted).abs().mean()
            parts["features"] = c.features * error / parallel.mean_of_all(wanted.abs().mean())
        return parts


@dataclass(frozen=True)
class RefinementOptions(Options):
    seconds: float = option(1.28, "length of a crop", above=0)
    vae: str | None = option(None, "weights of the VAE whose mels it repairs, by name or path", str, metavar="WEIGHTS")


class RefinementTask(LadderTask):
    """`vae`: the one whose mels are repaired."""

    network, Network, Options = "refinement", Refinement, RefinementOptions

    def __init__(
        self,
        config: RefinementConfig,
        vae: MelVAE,
        options: RefinementOptions = RefinementOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        if config.n_mels != vae.config.mel.n_mels:
            raise WavelldmError(f"the VAE has {vae.config.mel.n_mels} mel bands and the refinement {config.n_mels}")
        self.vae = vae.to(device).eval().requires_grad_(False)
        super().__init__(config, options, device, seed)

    def rate(self, config: RefinementConfig) -> int:
        return self.vae.config.mel.sr

    @classmethod
    def create(
        cls,
        preset: Preset,
        changes: list[str],
        options: RefinementOptions,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> "RefinementTask":
        if options.vae is None:
            raise WavelldmError("the refinement repairs the mels of a VAE; name its weights with --vae")
        vae = load(options.vae, MelVAE, device)
        config = replace(preset.refinement, n_mels=vae.config.mel.n_mels)
        task = cls(override(config, changes), vae, options, device, seed)
        task.needs = {"vae": task.vae}
        return task

    def parts(self, net: Refinement, wav: Tensor, which: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            mel = self.vae.mel(wav, self.sr)
            coarse = self.vae(mel)
        ours = net(coarse)
        return {"mel": (ours - mel).abs().mean(), "edges": edges(ours, mel)}


@dataclass(frozen=True)
class AutoencoderOptions(Options):
    seconds: float = option(2.0, "length of a crop", above=0)


class AutoencoderTask(LadderTask):
    network, Network, Options = "autoencoder", Autoencoder, AutoencoderOptions

    def __init__(
        self,
        config: AutoencoderConfig,
        options: AutoencoderOptions = AutoencoderOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        super().__init__(config, options, device, seed)

    def rate(self, config: AutoencoderConfig) -> int:
        return config.sr

    def parts(self, net: Autoencoder, wav: Tensor, which: Tensor) -> dict[str, Tensor]:
        """The rate-distortion cost at steps drawn evenly on a logarithmic scale; when validating, at their middle."""
        c = net.config
        where = torch.rand(len(wav)) if net.training else torch.full((len(wav),), 0.5)
        return net.distances(wav, (c.finest * (c.coarsest / c.finest) ** where).to(wav))

    def decoded(self, model: Autoencoder, wav: Tensor) -> dict[str, Tensor]:
        return {"decoded": model(wav, 1.0).wav}


def with_phase_of(wav: Tensor, ours: Tensor, log_mel: Tensor, c: MelConfig) -> Tensor:
    """wav (B, 1, N) with its spectrum turned up and down until its mel is about `ours` instead of `log_mel`: (B, 1, N).

    So losses on sound reach a mel without a vocoder: every bin keeps its phase, and takes the gain of the bands around
    it.
    """
    bank = bank_of(c).to(wav)
    share = bank.T / bank.sum(0)[:, None].clamp_min(1e-8)  # (bins, M): a bin's bands, weighed to one
    gain = (share @ (ours - log_mel)).clamp(-6, 6).exp() ** (1 / c.power)
    spectrum = stft(wav, c.n_fft, c.hop, c.win, c.padding)
    return istft(spectrum * gain, c.n_fft, c.hop, c.win, c.padding, wav.shape[-1])[:, None]
