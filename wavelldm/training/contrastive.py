"""How the text encoder and the audio encoder are trained together: contrastive loss, and the kinds of events."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.scenes import NAMES, Scene
from ..text.contrastive import PairConfig, TextAudioPair, contrastive_loss
from .captioned import Captioned
from .loop import Task
from .options import HalfOptions, option

CLASSES = 0.3  # weight of the loss of the token-semantic head


@dataclass(frozen=True)
class PairOptions(HalfOptions):
    batch_size: int = option(64, "sounds in one step", least=2)


def kinds_of(abouts: list) -> Tensor:
    """Which kinds of events are in each scene (B, kinds); -1 everywhere where nobody knows."""
    rows = torch.full((len(abouts), len(NAMES)), -1.0)
    for i, about in enumerate(abouts):
        if isinstance(about, Scene):
            rows[i] = 0
            for event in about.events:
                rows[i, NAMES.index(event.kind)] = 1
    return rows


def alike(abouts: list) -> Tensor:
    """Equal numbers for what has equal words (B,)."""
    numbers: dict = {}
    return torch.tensor([numbers.setdefault(repr(about), len(numbers)) for about in abouts])


class PairTask(Task):
    """Batches are (log-mel, tokens, which are real, which scenes are alike, kinds)."""

    network, Network, Options, uses_noise = "pair", TextAudioPair, PairOptions, False

    def __init__(
        self,
        config: PairConfig,
        options: PairOptions = PairOptions(),
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        super().__init__(options, device, seed)
        self.sr = config.audio.mel.sr
        self.networks, self.groups = {"model": TextAudioPair(config).to(device)}, {"pair": ["model"]}

    def read_captioned(self, train: Captioned, valid: Captioned) -> "PairTask":
        text = self.networks["model"].text

        def ready(batch: tuple) -> tuple:
            mel, words, abouts = batch
            return mel, *text.tokens(words), alike(abouts), kinds_of(abouts)

        self.with_data(
            lambda first: map(ready, train.batches(self.options.batch_size, self.seed, first)),
            [ready(batch) for batch in valid.in_order(64)],
        )
        return self

    def losses(self, batch: tuple) -> Iterator:
        mel, numbers, real, same, kinds = (x.to(self.device) for x in batch)
        net = self.networks["model"].train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            sound, curves = net.of_mel(varied(mel))
            _, text = net.of_tokens(numbers, real)
        sound, text, curves = sound.float(), text.float(), curves.float()
        pair = contrastive_loss(sound, text, net.scale, same)
        known = kinds[:, 0] >= 0
        heard = pair.new_zeros(())
        if known.any():
            heard = F.binary_cross_entropy_with_logits(curves.mean(-1)[known], kinds[known])
        figures = {"contrast": pair.detach(), "classes": heard.detach(), "scale": net.scale.detach()}
        yield "pair", pair + CLASSES * heard, figures

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict:
        """The loss on held-out sounds, and how often the right caption of a batch is the nearest, and the right sound.
        What is alike counts as right."""
        losses, there, back_again = [], [], []
        for batch in self.valid:
            mel, numbers, real, same, _ = (x.to(self.device) for x in batch)
            sound, text = model.of_mel(mel)[0], model.of_tokens(numbers, real)[1]
            losses.append(float(contrastive_loss(sound, text, model.scale, same)))
            fit = sound @ text.T
            there.append((same[fit.argmax(1)] == same).float())
            back_again.append((same[fit.argmax(0)] == same).float())
        return {
            "score": sum(losses) / len(losses),
            "sound_to_text": float(torch.cat(there).mean()),
            "text_to_sound": float(torch.cat(back_again).mean()),
        }


def varied(log_mel: Tensor) -> Tensor:
    """The same sounds a little louder or softer, with spans of time and of bands withheld (SpecAugment, arXiv
    1904.08779), so that a few thousand sounds last longer."""
    batch, bands, frames = log_mel.shape
    x = log_mel + 0.2 * torch.randn(batch, 1, 1, device=log_mel.device)
    low = float(log_mel.min())
    start, size = torch.randint(0, bands, (batch, 1)), torch.randint(0, 8, (batch, 1))
    band = torch.arange(bands)
    hide = (band >= start) & (band < start + size)  # (B, M)
    return x.masked_fill(hide.to(x.device)[..., None], low)
