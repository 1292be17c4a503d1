"""What training the ladder's networks means: vocoder, mel VAE, refinement of its mels, and the autoencoder that keeps phase.

One task for all: a network, and a function from it and a batch to the parts of its loss. Batches are (wav, which item it is of)."""

from itertools import count

import numpy as np
import torch
from torch import Tensor

from ..audio.mel import bank_of
from ..audio.stft import istft, stft
from ..codec.losses import stft_loss
from ..codec.model import Codec
from ..data.clips import Clips
from ..data.corpora import Material
from ..errors import WavelldmError
from ..ladder.autoencoder import Autoencoder
from ..ladder.refinement import Refinement, edges
from ..mel.vae import MelVAE, kl, reparameterise, words_of
from ..mel.vocoder import Vocoder
from ..weights import load
from . import parallel
from .loop import Plan, adopt, train_to_weights
from .presets import Preset

KINDS = {"vocoder": Vocoder, "vae": MelVAE, "refinement": Refinement, "autoencoder": Autoencoder}
SECONDS = {"vocoder": 1.0, "vae": 1.28, "refinement": 1.28, "autoencoder": 2.0}  # of a crop
UNTOLD = 0.2  # share of items whose words are withheld in training


def with_phase_of(wav: Tensor, ours: Tensor, log_mel: Tensor, c) -> Tensor:
    """wav (B, 1, N) with its spectrum turned up and down until its mel is about `ours` instead of `log_mel`: (B, 1, N).

    So losses on sound reach a mel without a vocoder: every bin keeps its phase, and takes the gain of the bands around it."""
    bank = bank_of(c).to(wav)
    share = bank.T / bank.sum(0)[:, None].clamp_min(1e-8)  # (bins, M): a bin's bands, weighed to one
    gain = (share @ (ours - log_mel)).clamp(-6, 6).exp() ** (1 / c.power)
    spectrum = stft(wav, c.n_fft, c.hop, c.win, c.padding)
    return istft(spectrum * gain, c.n_fft, c.hop, c.win, c.padding, wav.shape[-1])[:, None]


def vocoder_parts(net: Vocoder, wav: Tensor, *_) -> dict:
    parts = net.distances(wav)
    return {"bins": 10 * parts["bins"], "bands": 0.3 * parts["bands"]}


def vae_parts(net: MelVAE, wav: Tensor, texts, codec=None) -> dict:
    """L1 and squared error of the mel, KL, and, where the config weighs them, distances of sound and of what a codec hears in it."""
    c, m = net.config, net.config.mel
    mel = net.mel(wav, m.sr)
    mean, logvar = net.encode(mel)
    ours = net.decode(reparameterise(mean, logvar) if net.training else mean, mel.shape[-1], texts)
    error = (ours - mel) / c.scale
    parts = {"mel": error.abs().mean() + error.square().mean(), "kl": c.kl * kl(mean, logvar)}
    if c.stft or codec is not None:
        sound = with_phase_of(wav, ours, mel, m)
    if c.stft:
        parts["stft"] = c.stft * stft_loss(sound, wav)
    if codec is not None:
        with torch.no_grad():
            wanted = codec.encode(wav, m.sr)
        parts["features"] = c.features * (codec.encode(sound, m.sr) - wanted).abs().mean() / wanted.abs().mean()
    return parts


def refinement_parts(net: Refinement, wav: Tensor, texts, vae: MelVAE) -> dict:
    with torch.no_grad():
        mel = vae.mel(wav, vae.config.mel.sr)
        coarse = vae(mel)
    ours = net(coarse)
    return {"mel": (ours - mel).abs().mean(), "edges": edges(ours, mel)}


def autoencoder_parts(net: Autoencoder, wav: Tensor, *_) -> dict:
    """The rate-distortion cost at steps drawn evenly on a logarithmic scale; when validating, at their middle."""
    c = net.config
    where = torch.rand(len(wav)) if net.training else torch.full((len(wav),), 0.5)
    return net.distances(wav, (c.finest * (c.coarsest / c.finest) ** where).to(wav))


PARTS = {"vocoder": vocoder_parts, "vae": vae_parts, "refinement": refinement_parts, "autoencoder": autoencoder_parts}


class LadderTask:
    """`valid`: batches like those it trains on. `words`: of the items that batches name, for training and for validation.
    `helper`: the codec that listens (vae), or the VAE whose mels are coarse (refinement)."""

    def __init__(
        self, kind: str, preset: Preset, valid: list, words=((), ()), helper=None, device="cpu", seed: int = 0
    ):
        torch.manual_seed(seed)
        self.kind, self.valid, self.words, self.sr, self.device = (
            kind,
            valid,
            words,
            preset.vae.mel.sr,
            torch.device(device),
        )
        self.helper = helper.to(device).eval().requires_grad_(False) if helper is not None else None
        self.networks, self.groups = {"model": KINDS[kind](getattr(preset, kind)).to(device)}, {kind: ["model"]}
        self.worded = kind == "vae" and preset.vae.words > 0

    def parts(self, net, batch, training: bool) -> dict:
        wav, which = batch
        texts = None
        if self.worded:
            hidden = torch.rand(len(which)) < UNTOLD if training else torch.zeros(len(which))
            texts = ["" if h else self.words[not training][int(i)] for i, h in zip(which, hidden)]
        return PARTS[self.kind](net, wav.to(self.device), texts, self.helper)

    def losses(self, batch):
        parts = self.parts(self.networks["model"].train(), batch, True)
        yield self.kind, sum(parts.values()), {k: v.detach() for k, v in parts.items()}

    @torch.no_grad()
    def validate(self, model) -> dict:
        """The parts of the loss on held-out crops; a VAE that takes words is told them."""
        rows = [{k: float(v) for k, v in self.parts(model.eval(), batch, False).items()} for batch in self.valid]
        means = {f"valid_{k}": sum(row[k] for row in rows) / len(rows) for k in rows[0]}
        return {"score": sum(means.values()), **means}

    @torch.no_grad()
    def samples(self, model) -> dict:
        wav = self.valid[0][0][:1].to(self.device)
        if self.kind == "autoencoder":
            return {"original": wav[0].cpu(), "decoded": model(wav, 1.0).wav[0].cpu()}
        if self.kind == "vocoder":
            return {"original": wav[0].cpu(), "decoded": model(model.mel(wav, self.sr), wav.shape[-1])[0].cpu()}
        return {"original": wav[0].cpu()}


def crops(clips: Clips, seconds: float, batch: int, seed: int, first: int = 0):
    """Endless batches of wav (B, 1, n) and the index of each crop's item (B,); step k depends on (seed, k) alone."""
    n = round(seconds * clips.sr)
    for step in count(first):
        rng = np.random.default_rng([seed, step])
        which = [clips.draw(rng) for _ in range(batch)]
        yield torch.stack([clips.crop(n, rng, i, loop=True)[:1] for i in which]), torch.tensor(which)


def held_out(clips: Clips, seconds: float, batch: int, number: int = 48) -> list:
    """The same crops each time, from as many files as there are."""
    n, rng = round(seconds * clips.sr), np.random.default_rng(0)
    which = [int(clips.audible[k % len(clips.audible)]) for k in range(number)]
    pairs = [(clips.crop(n, rng, i, loop=True)[:1], i) for i in which]
    return [
        (torch.stack([w for w, _ in pairs[i : i + batch]]), torch.tensor([k for _, k in pairs[i : i + batch]]))
        for i in range(0, number, batch)
    ]


def run(
    kind: str,
    preset: Preset,
    material: Material,
    plan: Plan,
    folder,
    batch: int = 16,
    seconds: float | None = None,
    vae: str | None = None,
    codec: str | None = None,
    start: str | None = None,
    progress: bool = True,
) -> dict:
    """Train one of the four networks in `folder`, or go on where it stopped; the result is in best.pt. Returns what `train.fit` does.

    `vae`: weights whose mels the refinement repairs. `codec`: weights of the codec that hears features. `start`: weights to begin with."""
    device, seconds = parallel.begin(), seconds or SECONDS[kind]
    helper = None
    if kind == "refinement":
        if vae is None:
            raise WavelldmError("the refinement repairs the mels of a VAE; name its weights with --vae")
        helper = load(vae, MelVAE)
    elif kind == "vae" and preset.vae.features:
        helper = load(codec or "voice16k", Codec)
        if helper.sr != preset.vae.mel.sr:
            raise WavelldmError(
                f"this codec hears at {helper.sr} Hz, the mels are of {preset.vae.mel.sr} Hz; choose another --codec"
            )
    everything = [material.speech, material.valid_speech]
    if kind == "vae" and preset.vae.words and material.noise:
        everything = [material.speech + material.noise, material.valid_speech + material.valid_noise]
    train, held = parallel.in_turn(lambda: [Clips(items, preset.vae.mel.sr) for items in everything])
    words = tuple([words_of(item) for item in clips.items] for clips in (train, held))
    task = LadderTask(kind, preset, held_out(held, seconds, batch), words, helper, device, plan.seed)
    if start:
        adopt(task.networks["model"], load(start, KINDS[kind]), start)
    name = f"{preset.name}-{kind}"
    return train_to_weights(
        task, lambda first: crops(train, seconds, batch, plan.seed, first), plan, folder, name, progress=progress
    )
