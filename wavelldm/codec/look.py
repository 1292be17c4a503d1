"""An encoder that listens to what it coded: it decodes its codes, compares with the recording and corrects them.

Such a look costs as much as one step of the search in `search.py`, and starts from the same: the gradient of the loss.
How far to go is learnt, from that gradient, from the decoder's error and from the recording. For optimisation in
general see "Learning to learn by gradient descent by gradient descent" (arXiv 1606.04474), for encoders iterative
amortised inference (arXiv 1807.09356). As many bits as before, the same decoder, the same files."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import weights
from ..nn.layers import Chain, ChannelNorm, Conv1d, ConvNeXtBlock
from .losses import PULSE_WEIGHTS, MelLoss, pulse_distances_of
from .model import Codec
from .search import check_pulsed

UNIT = 0.1  # about the size of a gradient, per frame


@dataclass(frozen=True)
class LooksConfig:
    """How often the encoder looks, and with how large a network."""

    latent_dim: int = 384  # channels of the codec's latent
    mels: int = 100  # bands of its mel
    numbers: int = 20  # that it rounds in each frame
    looks: int = 6
    width: int = 192
    depth: int = 3  # ConvNeXt blocks
    expansion: int = 2
    seen: int = 64  # channels into which the encoder's latent is folded
    memory: int = 64  # channels that it keeps from look to look
    step: float = 0.08  # along the gradient, before anything is learnt


class Heard(NamedTuple):
    """Numbers, what their sound is like, and which way it would be better."""

    u: Tensor  # (B, T, G * d)
    parts: dict  # the distances of PULSE_WEIGHTS
    gradient: Tensor  # (B, T, G * d), of their weighted sum


class Looks(nn.Module):
    """One network for all looks; what it remembers between them tells it how far it has come."""

    Config = LooksConfig
    name, hash = "untrained", None  # set by weights.load

    def __init__(self, config: LooksConfig):
        super().__init__()
        c = self.config = config
        inputs = c.seen + 4 * c.numbers + c.mels + c.memory
        blocks = (ConvNeXtBlock(c.width, c.expansion) for _ in range(c.depth))
        self.seen = Conv1d(c.latent_dim, c.seen, 1)
        self.body = Chain(Conv1d(inputs, c.width, 3), ChannelNorm(c.width), *blocks, ChannelNorm(c.width))
        self.out = Conv1d(c.width, c.numbers, 1)
        self.remember = Conv1d(c.width, c.memory, 1)
        self.step = nn.Parameter(torch.full((c.numbers, 1), c.step))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def correct(self, told: Tensor, gradient: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """What is known (B, ..., T), the gradient (B, G * d, T) and the memory -> change of the numbers, memory."""
        y = self.body(torch.cat([told, gradient, memory], dim=1))
        return self.out(y) - self.step * gradient.tanh(), self.remember(y).tanh()

    def forward(
        self, codec: Codec, wav: Tensor, keep: Tensor | None = None, number: Tensor | None = None, heard: bool = False
    ) -> Iterator[Heard]:
        """wav (B, 1, N) -> the encoder's numbers, then those after each look, each with the gradient of its loss; of
        the last one only if it should be `heard`. `keep`: see `fsq.random_keep`; `number`: see `pulse_decode`."""
        check_pulsed(codec)
        quantiser, mels = codec.quantiser, MelLoss(codec.sr).to(wav.device).mels
        whole = F.pad(wav, (0, -wav.shape[-1] % codec.hop))
        with torch.no_grad():
            z, target = codec.encode(wav, codec.sr), codec.spectrogram(whole)
            u = quantiser.projected(z)  # (B, T, G * d)
        seen, change = self.seen(z), torch.zeros_like(u)
        memory = z.new_zeros(len(z), self.config.memory, z.shape[-1])
        for left in range(self.config.looks, -1, -1):
            if left == 0 and not heard:
                yield Heard(u, {}, torch.zeros_like(u))
                return
            with torch.enable_grad():
                leaf = u.detach().requires_grad_()
                decoded, parts = pulse_distances_of(codec, quantiser.rounded(leaf, keep)[0], wav, mels, number)
                loss = sum(weight * parts[name] for name, weight in PULSE_WEIGHTS.items())
                (gradient,) = torch.autograd.grad(loss, leaf)
            yield Heard(u, {name: part.detach() for name, part in parts.items()}, gradient)
            if left == 0:
                return
            with torch.no_grad():
                error = codec.spectrogram(F.pad(decoded, (0, whole.shape[-1] - wav.shape[-1]))) - target
                split = u.chunk(quantiser.groups, dim=-1)
                bounded = torch.cat([quantiser.fsq.bound(part) for part in split], dim=-1)
                rounded = torch.cat([quantiser.fsq(part)[0] for part in split], dim=-1)
                steep = torch.asinh(gradient * gradient.shape[:2].numel() / UNIT)  # of a frame's share of the loss
            known = torch.cat([bounded, 5 * (rounded - bounded), 5 * change.detach()], dim=-1).transpose(1, 2)
            change, memory = self.correct(torch.cat([seen, known, error], dim=1), steep.transpose(1, 2), memory)
            change = change.transpose(1, 2)
            u = u + change

    @torch.no_grad()
    def numbers(self, codec: Codec, wav: Tensor, codebooks: int | None = None, first: int = 0) -> Tensor:
        """wav (B, 1, N) -> the corrected numbers (B, T, G * d), before rounding; see `search.search`."""
        count = codebooks or codec.quantiser.codebooks
        keep = torch.full((len(wav),), count, device=wav.device)
        number = first + torch.arange(codec.frames(wav.shape[-1]), device=wav.device)
        return list(self(codec, wav, keep, number))[-1].u


def looks_of(codec: Codec) -> Looks | None:
    """The looks that ship for these weights of the codec, if there are any."""
    name = f"{codec.name}-looks"
    if codec.hash is None or not (weights.SHIPPED / f"{name}.safetensors").exists():
        return None
    if weights.about(name)["needs"]["codec"]["hash"] != codec.hash:
        return None
    return weights.load(name, Looks, next(codec.parameters()).device)
