"""What training the codec means: four losses, critics that may join late, validation on held-out crops."""

import torch
from torch import Tensor

from .adversarial import WEIGHTS, Critics, MelLoss, adversarial_loss, critic_loss, feature_loss, stft_loss
from .codec import Codec
from .config import Preset
from .fsq import random_keep


class CodecTask:
    """Trains a codec on clean speech: batches are (noisy, clean) of which the clean half is used.

    Without critics (critic_width 0) only the mel and STFT losses count, which is how a run starts when computing is scarce.
    """

    def __init__(self, preset: Preset, valid: list, critic_width: int = 0, device="cpu", seed: int = 0, weights=None):
        torch.manual_seed(seed)
        self.device, self.valid = device, valid
        self.weights = {**WEIGHTS, **(weights or {})}
        self.mel_loss = MelLoss(preset.mel.sr).to(device)
        self.networks = {"model": Codec(preset).to(device)}
        self.groups = {"codec": ["model"]}
        if critic_width:
            self.networks["critics"] = Critics(critic_width).to(device)
            self.groups["critics"] = ["critics"]

    def distances(self, decoded: Tensor, wav: Tensor) -> dict:
        return {"mel": self.mel_loss(decoded, wav), "stft": stft_loss(decoded, wav)}

    def losses(self, batch):
        wav = batch[1].to(self.device)  # (B, 1, N)
        codec, critics = self.networks["model"], self.networks.get("critics")
        keep = random_keep(len(wav), codec.quantiser.codebooks)
        decoded = codec(wav, keep).wav
        parts = self.distances(decoded, wav)
        if critics is not None:
            yield "critics", critic_loss(critics(wav), critics(decoded.detach())), {}
            real, fake = critics(wav), critics(decoded)
            parts |= {"adversarial": adversarial_loss(fake), "features": feature_loss(real, fake)}
        yield "codec", sum(self.weights[name] * part for name, part in parts.items()), {k: v.detach() for k, v in parts.items()}

    @torch.no_grad()
    def validate(self, model: Codec) -> dict:
        """Mel and STFT distance on held-out crops at all codebooks, and how many entries of each codebook they use."""
        figures, codes = [], []
        for _, wav in self.valid:
            coded = model(wav.to(self.device))
            figures.append([float(v) for v in self.distances(coded.wav, wav.to(self.device)).values()])
            codes.append(coded.codes.transpose(0, 1).flatten(1))  # (Q, B * T)
        mel, stft = (sum(column) / len(figures) for column in zip(*figures))
        used = torch.cat(codes, dim=1)
        share = sum(len(row.unique()) for row in used) / used.numel()  # distinct codes per frame: 1 if none ever repeats
        return {"score": mel, "valid_mel": mel, "valid_stft": stft, "distinct_codes": share}
