"""What training the codec means: four losses, critics that may join late, validation on held-out crops."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio.stft import POWER, stft
from ..codec import losses as voice
from ..codec.fsq import random_keep
from ..codec.losses import LOSS_WEIGHTS, Critics, MelLoss, adversarial_loss, critic_loss, feature_loss, stft_loss
from ..codec.model import Codec
from ..data.clips import Clips
from ..data.corpora import Material
from ..data.degrade import Degradation
from ..data.loader import batches, valid_pairs
from ..errors import WavelldmError
from ..weights import load
from . import parallel
from .loop import Plan, adopt, fast_half, train_to_weights
from .presets import Preset

CONTINUOUS = 0.15  # share of items decoded from z itself, so that the decoder also knows continuous latents
MAGNITUDES = {"bins": 4.0, "bands": 40.0}  # weights; about one over the variance of each in speech, bins a third of it
DROPPED = 0.15  # share of items with fewer codebooks than there are
SPREAD = 0.5  # weight of the spread loss beside those of voice.WEIGHTS


def spread_loss(u: Tensor) -> Tensor:
    """How far numbers (B, T, d) are from having mean 0, deviation 1 and nothing to do with each other: then tanh spreads
    them evenly over the levels, and codes carry all the bits that they cost."""
    u = u.flatten(0, 1).float()
    u, mean = u - u.mean(0), u.mean(0)
    covariance = u.T @ u / len(u)
    return (covariance - torch.eye(len(covariance), device=u.device)).square().mean() + mean.square().mean()


class CodecTask:
    """Trains a codec to give back what it is given. Batches are (noisy, clean); with `hear_noisy` every second item is noisy.

    Without critics (critic_width 0) only the mel and STFT losses count, which is how a run starts when computing is scarce.
    """

    def __init__(
        self,
        preset: Preset,
        valid: list,
        critic_width: int = 0,
        hear_noisy: bool = False,
        device="cpu",
        seed: int = 0,
        half: bool = True,
    ):
        torch.manual_seed(seed)
        self.sr, self.valid, self.hear_noisy = preset.codec.sr, valid, hear_noisy
        self.device = torch.device(device)
        self.half = half and fast_half(self.device)
        self.mel_loss = MelLoss(self.sr).to(device)
        self.networks = {"model": Codec(preset.codec).to(device)}
        self.groups = {"codec": ["model"]}
        self.polished = (
            preset.codec.polish > 0
        )  # then only magnitudes are learnt, and nothing passes through Griffin-Lim
        self.voiced = preset.codec.decoder == "source"
        self.weights = voice.PULSE_WEIGHTS | {"spread": SPREAD} if self.voiced else LOSS_WEIGHTS | MAGNITUDES
        if critic_width and self.polished:
            raise WavelldmError(
                "critics listen to the head's own phases; train with codec.polish=0, or without critics"
            )
        if critic_width:
            self.networks["critics"] = Critics(critic_width).to(device)
            self.groups["critics"] = ["critics"]

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

    def losses(self, batch):
        noisy, clean = (x.to(self.device) for x in batch)  # (B, 1, N)
        wav = clean
        if self.hear_noisy:
            odd = torch.arange(len(wav), device=self.device)[:, None, None] % 2 == 1
            wav = torch.where(odd, noisy, clean)
        codec, critics = self.networks["model"], self.networks.get("critics")
        everybody = len(wav) * parallel.world()
        keep, chance = parallel.share(
            (random_keep(everybody, codec.quantiser.codebooks, DROPPED), torch.rand(everybody, 1, 1))
        )
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)
        with half:
            z = codec.encode(wav, self.sr)
            z_q = torch.where(chance.to(self.device) < CONTINUOUS, z.float(), codec.quantise(z, keep)[0])
            if self.polished:
                parts = self.magnitudes(codec, z_q, wav)
            elif self.voiced:
                parts = voice.pulse_distances(codec, z_q, wav, self.mel_loss.mels) | {
                    "spread": spread_loss(codec.quantiser.projected(z))
                }
            else:
                decoded = codec.decode(z_q, wav.shape[-1]).float()
        if not (self.polished or self.voiced):
            parts = self.distances(decoded, wav)
        if critics is not None:
            with half:
                verdict = critic_loss(critics(wav), critics(decoded.detach()))
            yield "critics", verdict, {}
            with half:
                real, fake = critics(wav), critics(decoded)
                parts |= {"adversarial": adversarial_loss(fake), "features": feature_loss(real, fake)}
        yield (
            "codec",
            sum(self.weights[name] * part for name, part in parts.items()),
            {k: v.detach() for k, v in parts.items()},
        )

    @torch.no_grad()
    def validate(self, model: Codec) -> dict:
        """Mel and STFT distance on held-out crops at all codebooks, and how often codes differ: 1 if none ever repeats."""
        rows, codes = [], []
        for _, wav in self.valid:
            wav = wav.to(self.device)
            coded = model(wav)
            parts = self.distances(coded.wav, wav)
            if self.polished:
                parts |= self.magnitudes(model, coded.z_q, wav)
            elif self.voiced:
                parts |= voice.pulse_distances(model, coded.z_q, wav, self.mel_loss.mels)
            rows.append([float(v) for v in parts.values()])
            codes.append(coded.codes.transpose(0, 1).flatten(1))  # (Q, B * T)
        figures = dict(zip(parts, (sum(column) / len(rows) for column in zip(*rows))))
        weights = (
            MAGNITUDES
            if self.polished
            else {k: v for k, v in voice.PULSE_WEIGHTS.items() if k != "pitch"}
            if self.voiced
            else {"mel": 1.0}
        )
        score = sum(weight * figures[k] for k, weight in weights.items())
        used = torch.cat(codes, dim=1)
        share = sum(len(row.unique()) for row in used) / used.numel()
        return {"score": score, **{f"valid_{k}": v for k, v in figures.items()}, "distinct_codes": share}

    @torch.no_grad()
    def samples(self, model: Codec) -> dict:
        wav = self.valid[0][1][:1].to(self.device)
        return {"original": wav[0].cpu(), "decoded": model(wav).wav[0].cpu()}


def run(
    preset: Preset,
    material: Material,
    plan: Plan,
    folder,
    batch: int = 16,
    seconds: float = 1.0,
    critic_width: int = 0,
    cutting: bool = False,
    start: str | None = None,
    workers: int = 0,
    progress: bool = True,
    half: bool = True,
) -> dict:
    """Train a codec in `folder`, or go on where it stopped; the result is in best.pt. Returns what `train.fit` does.

    `start`: weights to begin with, of the same size."""
    device, sr = parallel.begin(), preset.codec.sr
    recipe = Degradation(noise=1.0 if material.recorded else 0.0, snr=None, level=1.0, dropout=0.5 if cutting else 0.0)
    speech = parallel.in_turn(lambda: Clips(material.speech, sr))
    valid = valid_pairs(material.valid_speech, None, recipe, sr, 2 * seconds, batch, count=48)
    hear_noisy = material.recorded or cutting
    task = CodecTask(preset, valid, critic_width, hear_noisy, device, plan.seed, half)
    if start:
        adopt(task.networks["model"], load(start, Codec), start)

    def stream(start: int):
        return batches(speech, None, recipe, sr, seconds, batch, plan.seed, workers, start)

    return train_to_weights(task, stream, plan, folder, preset.name, progress=progress)


def steps_for(epochs: float, material: Material, sr: int, batch: int, seconds: float) -> int:
    """How many steps hear as much sound as there is, `epochs` times."""
    return max(1, round(epochs * Clips(material.speech, sr).seconds / (batch * seconds)))
