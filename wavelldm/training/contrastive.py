"""How the text encoder and the audio encoder are trained together: contrastive loss, and the kinds of events."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import scenes
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


def wrong_captions(abouts: list, seed: int) -> list[str]:
    """A caption of a scene that differs in one thing, for every scene among them."""
    found = []
    for i, about in enumerate(abouts):
        if isinstance(about, Scene):
            generator = np.random.default_rng([seed, i])
            found.append(scenes.caption(scenes.changed(about, generator), generator))
    return found


class PairTask(Task):
    """Batches are (log-mel, tokens, which are real, which scenes are alike, kinds, tokens of wrong captions, which are
    real)."""

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

        def ready(batch: tuple, number: int) -> tuple:
            mel, words, abouts = batch
            wrong = wrong_captions(abouts, number)
            return mel, *text.tokens(words), alike(abouts), kinds_of(abouts), *(text.tokens(wrong) if wrong else ())

        self.with_data(
            lambda first: (
                ready(batch, step)
                for step, batch in enumerate(train.batches(self.options.batch_size, self.seed, first), first)
            ),
            [ready(batch, number) for number, batch in enumerate(valid.in_order(64))],
        )
        return self

    def losses(self, batch: tuple) -> Iterator:
        mel, numbers, real, same, kinds, *wrong = (x.to(self.device) for x in batch)
        net = self.networks["model"].train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            sound, curves = net.of_mel(varied(mel))
            text = net.of_tokens(numbers, real)[1].float()
            wrong = net.of_tokens(*wrong)[1].float() if wrong else None
        sound, curves = sound.float(), curves.float()
        pair = contrastive_loss(sound, text, net.scale, same, wrong)
        known = kinds[:, 0] >= 0
        heard = pair.new_zeros(())
        if known.any():
            heard = F.binary_cross_entropy_with_logits(curves.mean(-1)[known], kinds[known])
        figures = {"contrast": pair.detach(), "classes": heard.detach(), "scale": net.scale.detach()}
        yield "pair", pair + CLASSES * heard, figures

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict:
        """The loss on held-out sounds, and how often the right caption of a batch is the nearest, and the right sound;
        what is alike counts as right. `told_apart`: how often the caption is nearer than a wrong one."""
        losses, there, back_again, apart = [], [], [], []
        for batch in self.valid:
            mel, numbers, real, same, _, *wrong = (x.to(self.device) for x in batch)
            sound, text = model.of_mel(mel)[0], model.of_tokens(numbers, real)[1]
            other = model.of_tokens(*wrong)[1] if wrong else None
            losses.append(float(contrastive_loss(sound, text, model.scale, same, other)))
            if wrong and len(other) == len(sound):  # then they belong to each other
                apart.append(((sound * text).sum(1) > (sound * other).sum(1)).float())
            fit = sound @ text.T
            there.append((same[fit.argmax(1)] == same).float())
            back_again.append((same[fit.argmax(0)] == same).float())
        return {
            "score": sum(losses) / len(losses),
            "sound_to_text": float(torch.cat(there).mean()),
            "text_to_sound": float(torch.cat(back_again).mean()),
        } | ({"told_apart": float(torch.cat(apart).mean())} if apart else {})


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
