"""What training the codec means: four losses, critics that may join late, validation on held-out crops."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from . import parallel
from .adversarial import WEIGHTS, Critics, MelLoss, adversarial_loss, critic_loss, feature_loss, stft_loss
from .clips import Clips
from .codec import Codec
from .config import Preset
from .data import batches, valid_pairs
from .degrade import Degradation
from .fsq import random_keep
from .material import Material
from .train import Plan, fit, load_checkpoint
from .weights import save_codec

UNROUNDED = 0.125  # share of items whose latent is not rounded, so that the decoder also knows continuous latents
DROPPED = 0.2  # share of items with fewer codebooks than there are


class CodecTask:
    """Trains a codec to give back what it is given. Batches are (noisy, clean); with `hear_noisy` every second item is noisy.

    Without critics (critic_width 0) only the mel and STFT losses count, which is how a run starts when computing is scarce.
    """

    def __init__(self, preset: Preset, valid: list, critic_width: int = 0, hear_noisy: bool = False, device="cpu", seed: int = 0):
        torch.manual_seed(seed)
        self.sr, self.valid, self.hear_noisy = preset.mel.sr, valid, hear_noisy
        self.device = torch.device(device)
        self.mel_loss = MelLoss(self.sr).to(device)
        self.networks = {"model": Codec(preset).to(device)}
        self.groups = {"codec": ["model"]}
        if critic_width:
            self.networks["critics"] = Critics(critic_width).to(device)
            self.groups["critics"] = ["critics"]

    def distances(self, decoded: Tensor, wav: Tensor) -> dict:
        return {"mel": self.mel_loss(decoded, wav), "stft": stft_loss(decoded, wav)}

    def losses(self, batch):
        noisy, clean = (x.to(self.device) for x in batch)  # (B, 1, N)
        wav = clean
        if self.hear_noisy:
            odd = torch.arange(len(wav), device=self.device)[:, None, None] % 2 == 1
            wav = torch.where(odd, noisy, clean)
        codec, critics = self.networks["model"], self.networks.get("critics")
        everybody = len(wav) * parallel.world()
        keep, chance = parallel.share((random_keep(everybody, codec.quantiser.codebooks, DROPPED), torch.rand(everybody, 1, 1)))
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
        with half:
            z = codec.encode(wav, self.sr)
            z_q = torch.where(chance.to(self.device) < UNROUNDED, codec.quantiser.unrounded(z), codec.quantise(z, keep)[0])
            decoded = codec.decode(z_q, wav.shape[-1]).float()
        parts = self.distances(decoded, wav)
        if critics is not None:
            with half:
                verdict = critic_loss(critics(wav), critics(decoded.detach()))
            yield "critics", verdict, {}
            with half:
                real, fake = critics(wav), critics(decoded)
                parts |= {"adversarial": adversarial_loss(fake), "features": feature_loss(real, fake)}
        yield "codec", sum(WEIGHTS[name] * part for name, part in parts.items()), {k: v.detach() for k, v in parts.items()}

    @torch.no_grad()
    def validate(self, model: Codec) -> dict:
        """Mel and STFT distance on held-out crops at all codebooks, and how often codes differ: 1 if none ever repeats."""
        figures, codes = [], []
        for _, wav in self.valid:
            coded = model(wav.to(self.device))
            figures.append([float(v) for v in self.distances(coded.wav, wav.to(self.device)).values()])
            codes.append(coded.codes.transpose(0, 1).flatten(1))  # (Q, B * T)
        mel, stft = (sum(column) / len(figures) for column in zip(*figures))
        used = torch.cat(codes, dim=1)
        share = sum(len(row.unique()) for row in used) / used.numel()
        return {"score": mel, "valid_mel": mel, "valid_stft": stft, "distinct_codes": share}

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
    workers: int = 0,
    progress: bool = True,
) -> dict:
    """Train a codec in `folder`, or go on where it stopped; the result is in best.pt. Returns what `train.fit` does."""
    device, sr = parallel.begin(), preset.mel.sr
    recipe = Degradation(noise=1.0 if material.recorded else 0.0, snr=None, level=1.0, dropout=0.5 if cutting else 0.0)
    speech = Clips(material.speech, sr)
    valid = valid_pairs(material.valid_speech, None, recipe, sr, 2 * seconds, batch, count=48)
    hear_noisy = material.recorded or cutting
    task = CodecTask(preset, valid, critic_width, hear_noisy, device, plan.seed)

    def stream(start: int):
        return batches(speech, None, recipe, sr, seconds, batch, plan.seed, workers, start)

    try:
        result = fit(task, stream, plan, folder, progress)
    finally:
        first = parallel.rank() == 0
        parallel.end()
    if first and result["best"] is not None:
        publish(folder, preset, plan)
    return result


def publish(folder, preset: Preset, plan: Plan) -> Path:
    """The best averaged model of a run as FOLDER/PRESET.safetensors, which `weights.load_codec` takes."""
    best = load_checkpoint(Path(folder) / "best.pt")
    codec = Codec(preset)
    codec.load_state_dict(best["model"])
    facts = {"steps": best["step"], "valid_mel": round(best["score"], 4), "plan": asdict(plan)}
    return save_codec(Path(folder) / preset.name, codec, facts, force=True)


def steps_for(epochs: float, material: Material, sr: int, batch: int, seconds: float) -> int:
    """How many steps hear as much sound as there is, `epochs` times."""
    return max(1, round(epochs * Clips(material.speech, sr).seconds / (batch * seconds)))
