"""Soft overload undone, of tensors: see `light/bend.py`, which does it, and where all is explained."""

import torch
from torch import Tensor

from ..light import bend
from ..light.bend import SHAPES, Curve

__all__ = ["SHAPES", "Curve", "find_curves", "straighten"]


def find_curves(wav: Tensor, sr: int) -> list[Curve | None]:
    """The curve that bent each channel of wav (C, N), or None where nothing is more likely."""
    return bend.find_curves(wav.detach().cpu().numpy(), sr)


def straighten(wav: Tensor, curves: list[Curve | None]) -> Tensor:
    """wav (C, N) with each channel's curve undone. Its loudest samples become louder, and may pass 1."""
    if not any(curves):
        return wav
    return torch.from_numpy(bend.straighten(wav.cpu().numpy(), curves)).to(wav)
