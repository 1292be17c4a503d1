"""Clipped peaks put back, of tensors: see `light/clip.py`, which does it, and where all is explained."""

import torch
from torch import Tensor

from ..light import clip


class Declipper(clip.Declipper):
    """The same with tensors: blocks (C, any) clipped at the ceilings low (C,) and high (C,)."""

    def __init__(self, low: Tensor, high: Tensor, sr: int):
        super().__init__(low.cpu().numpy(), high.cpu().numpy(), sr)

    def push(self, block: Tensor, last: bool = False) -> Tensor:
        """The next block -> what is certain by now, or with `last` all that is left."""
        return torch.from_numpy(super().push(block.cpu().numpy(), last)).to(block)


def declip(wav: Tensor, low: Tensor, high: Tensor, sr: int) -> Tensor:
    """wav (C, N), clipped at the ceilings low (C,) and high (C,) of its channels -> (C, N) with its peaks."""
    return Declipper(low, high, sr).push(wav, last=True)
