"""How the codec is trained: mel and STFT distances, critics that may join late, validation on held-out crops."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio.stft import POWER, stft
from ..codec.fsq import random_keep, random_losses
from ..codec.look import Looks
from ..codec.losses import (
    LOSS_WEIGHTS,
    PULSE_WEIGHTS,
    Critics,
    MelLoss,
    adversarial_loss,
    critic_loss,
    feature_loss,
    listening_distances,
    pulse_decode,
    pulse_distances,
    stft_loss,
)
from ..codec.model import Codec, CodecConfig
from ..codec.pulse import TABLE
from ..data.clips import Clips
from ..data.corpora import Corpus
from ..data.degrade import Degradation
from ..data.loader import batches, valid_pairs
from ..errors import WavelldmError
from ..weights import load
from . import parallel
from .loop import Task, adopt
from .net2net import as_corrected, backwards
from .options import CUTTING, HalfOptions, option

CONTINUOUS = 0.15  # share of items decoded from z itself, so that the decoder also knows continuous latents
OWN = 0.25  # with looks: share of items decoded from the encoder's own codes, so that the quick way stays as good
MAGNITUDES = {"bins": 4.0, "bands": 40.0}  # weights; about one over the variance of each in speech, bins a third of it
DROPPED = 0.15  # share of items with fewer codebooks than there are
SPREAD = 0.5  # weight of the spread loss beside those of PULSE_WEIGHTS
PULSE_CRITICS = {"adversarial": 0.02, "features": 0.04}  # beside a mel distance of weight 1, as in LOSS_WEIGHTS
HELD_OUT = 48  # crops to validate on, twice as long as those to train on


@dataclass(frozen=True)
class CodecOptions(HalfOptions):
    critics: int = option(0, "width of the critics MPD and MSD: 32 as in the papers, 0 for none", least=0)
    add_random_cutting: bool = option(False, CUTTING)
    lost: float = option(
        0.0, "the decoder learns to go on where frames are missing: at most this share, in half of the crops", least=0
    )
    decoder_alone: bool = option(False, "encoder and codes stay as they are, the decoder alone learns")
    looks: str | None = option(
        None, "the decoder alone learns, from codes that these looks corrected", str, metavar="WEIGHTS"
    )


def spread_loss(u: Tensor) -> Tensor:
    """How far numbers (B, T, d) are from having mean 0, deviation 1 and nothing to do with each other: then tanh
    spreads them evenly over the levels, and codes carry all the bits that they cost."""
    u = u.flatten(0, 1).float()
    u, mean = u - u.mean(0), u.mean(0)
    covariance = u.T @ u / len(u)
    return (covariance - torch.eye(len(covariance), device=u.device)).square().mean() + mean.square().mean()


class CodecTask(Task):
    """Trains a codec to give back what it is given. Batches are (noisy, clean); with `with_noisy` every second item is
    noisy.

    Without critics only the mel and STFT losses count, which is how a run starts when computing is scarce.
    """

    network, Network, Options, preset = "codec", Codec, CodecOptions, "voice16k"

    def __init__(
        self,
        config: CodecConfig,
        options: CodecOptions = CodecOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
        with_noisy: bool = False,
    ):
        super().__init__(options, device, seed)
        self.sr, self.with_noisy = config.sr, with_noisy
        self.mel_loss = MelLoss(self.sr).to(device)
        self.networks, self.groups = {"model": Codec(config).to(device)}, {"codec": ["model"]}
        self.polished = config.polish > 0  # then only magnitudes are learnt, and nothing passes through Griffin-Lim
        self.pulsed = config.decoder == "pulse"
        self.weights = LOSS_WEIGHTS | MAGNITUDES
        self.score_weights = MAGNITUDES if self.polished else {"mel": 1.0}
        if self.pulsed:
            self.weights = PULSE_WEIGHTS | PULSE_CRITICS | {"spread": SPREAD}
            self.score_weights = {k: v for k, v in PULSE_WEIGHTS.items() if k != "pitch"}
        self.looks = load(options.looks, Looks, device).eval() if options.looks else None
        if self.looks is not None and not self.pulsed:
            raise WavelldmError("looks know the pulse decoder alone; train with decoder=pulse, or without looks")
        if self.looks is not None or options.decoder_alone:
            model = self.networks["model"].requires_grad_(False)
            for part in (model.upsampler, model.decoder):
                part.requires_grad_(True)
        if options.critics and self.polished:
            raise WavelldmError("critics listen to the head's own phases; train with polish=0, or without critics")
        if options.critics:
            self.networks["critics"] = Critics(options.critics).to(device)
            self.groups["critics"] = ["critics"]

    def start_from(self, name: str) -> None:
        """Begin with weights of the same sizes; a causal codec also with those of one that looks ahead, one that
        corrects its spectra with those of one that does not, and the other way round."""
        model, other = self.networks["model"], load(name, Codec)
        if model.causal and not other.causal:
            other = backwards(other)
        other_way = self.pulsed and other.config.correction != model.config.correction
        adopt(model, as_corrected(model, other) if other_way else other.state_dict(), name)

    def read(self, corpus: Corpus) -> None:
        o = self.options
        cutting = 0.5 if o.add_random_cutting else 0.0
        recipe = Degradation(noise=1.0 if corpus.recorded else 0.0, snr=None, level=1.0, dropout=cutting)

        def decode() -> tuple[Clips, list]:
            held = valid_pairs(corpus.valid_speech, None, recipe, self.sr, 2 * o.seconds, o.batch_size, count=HELD_OUT)
            return Clips(corpus.speech, self.sr), held

        speech, self.valid = parallel.in_turn(decode)
        self.with_noisy = corpus.recorded or o.add_random_cutting
        self.reads_share, share = True, parallel.place()
        self.batches = lambda first: batches(
            speech, None, recipe, self.sr, o.seconds, o.batch_size, self.seed, o.num_workers, first, share=share
        )

    def distances(self, decoded: Tensor, wav: Tensor) -> dict:
        return {"mel": self.mel_loss(decoded, wav), "stft": stft_loss(decoded, wav)}

    def magnitudes(self, codec: Codec, z_q: Tensor, wav: Tensor) -> dict:
        """Squared errors of what Griffin-Lim will be given: compressed magnitudes of STFT bins and of mel bands."""
        c = codec.config.mel
        ours = codec.spectrum(z_q).abs()  # (B, n_fft / 2 + 1, F), float32
        with torch.autocast(self.device.type, enabled=False):
            real = stft(wav, c.n_fft, c.hop, c.win).abs()
            sizes = [x.clamp_min(1e-3) ** POWER for x in (ours, real)]
            mels = [(x.transpose(1, 2) @ codec.mel.bank).clamp_min(c.floor) ** POWER for x in (ours, real)]
        return {"bins": F.mse_loss(*sizes), "bands": F.mse_loss(*mels)}

    @torch.no_grad()
    def corrected(self, codec: Codec, wav: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        """wav (B, 1, N) -> its z_q (B, D, T) after all looks, and each frame's place in the noise (B, T)."""
        (number,) = parallel.share((torch.randint(TABLE, (len(wav) * parallel.parts()[1], 1)),))
        number = (number + torch.arange(codec.frames(wav.shape[-1]))).to(self.device)
        *_, heard = self.looks(codec, wav, keep, number)
        return codec.quantiser.rounded(heard.u, keep)[0], number

    def losses(self, batch: tuple) -> Iterator:
        noisy, clean = (x.to(self.device) for x in batch)  # (B, 1, N)
        wav, whole_batch = clean, len(clean) * parallel.parts()[1]
        if self.with_noisy:
            odd = parallel.share((torch.arange(whole_batch)[:, None, None] % 2 == 1,))[0]
            wav = torch.where(odd.to(self.device), noisy, clean)
        codec, critics = self.networks["model"], self.networks.get("critics")
        keep, chance = parallel.share(
            (random_keep(whole_batch, codec.quantiser.codebooks, DROPPED), torch.rand(whole_batch, 1, 1))
        )
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)
        with half:
            z, number = codec.encode(wav, self.sr), None
            chance = chance.to(self.device)
            quantised = codec.quantise(z, keep)[0]
            if self.looks is not None:
                corrected, number = self.corrected(codec, wav, keep)
                quantised = torch.where(chance < CONTINUOUS + OWN, quantised, corrected)
            z_q = torch.where(chance < CONTINUOUS, z.float(), quantised)
            if self.options.lost:
                (lost,) = parallel.share((random_losses(whole_batch, z.shape[-1], self.options.lost),))
                z_q = z_q.masked_fill(lost[:, None].to(self.device), 0.0)  # as if no codebook had arrived
            decoded = None
            if self.polished:
                parts = self.magnitudes(codec, z_q, wav)
            elif self.pulsed:
                decoded, missed = pulse_decode(codec, z_q, wav, number)
                parts = {"pitch": missed, "spread": spread_loss(codec.quantiser.projected(z))}
                parts |= listening_distances(decoded, wav, self.sr, self.mel_loss.mels)
            else:
                decoded = codec.decode(z_q, wav.shape[-1]).float()
        if not (self.polished or self.pulsed):
            parts = self.distances(decoded, wav)
        if critics is not None:
            with half:
                verdict = critic_loss(critics(wav), critics(decoded.detach()))
            yield "critics", verdict, {}
            with half:
                real, fake = critics(wav), critics(decoded)
                parts |= {
                    "adversarial": adversarial_loss(fake),
                    "features": feature_loss(real, fake, parallel.mean_of_all),
                }
        yield (
            "codec",
            sum(self.weights[name] * part for name, part in parts.items()),
            {k: v.detach() for k, v in parts.items()},
        )

    @torch.no_grad()
    def validate(self, model: Codec) -> dict:
        """Distances on held-out crops at all codebooks, and how often codes differ: 1 if none ever repeats."""
        rows, codes = [], []
        for _, wav in self.valid:
            wav = wav.to(self.device)
            coded = model(wav)
            if self.looks is not None:
                z_q, corrected = model.quantiser.rounded(self.looks.numbers(model, wav))
                coded = coded._replace(wav=model.decode(z_q, wav.shape[-1]), z_q=z_q, codes=corrected)
            parts = self.distances(coded.wav, wav)
            if self.polished:
                parts |= self.magnitudes(model, coded.z_q, wav)
            elif self.pulsed:
                parts |= pulse_distances(model, coded.z_q, wav, self.mel_loss.mels)
            rows.append([float(v) for v in parts.values()])
            codes.append(coded.codes.transpose(0, 1).flatten(1))  # (Q, B * T)
        figures = dict(zip(parts, (sum(column) / len(rows) for column in zip(*rows))))
        score = sum(weight * figures[k] for k, weight in self.score_weights.items())
        used = torch.cat(codes, dim=1)
        share = sum(len(row.unique()) for row in used) / used.numel()
        return {"score": score, **{f"valid_{k}": v for k, v in figures.items()}, "distinct_codes": share}

    @torch.no_grad()
    def samples(self, model: Codec) -> dict:
        wav = self.valid[0][1][:1].to(self.device)
        return {"original": wav[0].cpu(), "decoded": model(wav).wav[0].cpu()}
