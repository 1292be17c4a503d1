"""Begin a larger mask network as a smaller one that is trained already: at first both do the same (Net2Net, arXiv 1511.05641).

More channels: each stands several times, and whatever reads it shares its weight unevenly among the copies, so that their
gradients differ. More blocks, taps of the filter, or a guide: they add nothing yet.
"""

import torch
from torch import Tensor

from .errors import WavelldmError
from .masknet import MaskNet

UNEVEN = 0.3  # how far the shares of two copies lie from one half


def _parts(name: str, dim: int) -> int:
    """What is stacked along a dimension: the GRU's three gates, or a layer's input and the skip beside it."""
    return (3 if "gru" in name else 2 if name in ("up.weight", "last.weight") else 1) if dim == 0 else 1


def _copied(x: Tensor, dim: int, times: int, parts: int) -> Tensor:
    return torch.cat([part for piece in x.chunk(parts, dim) for part in [piece] * times], dim)


def _shared(x: Tensor, dim: int, times: int, parts: int) -> Tensor:
    """Copies that sum to the original."""
    shares = 1 / times + UNEVEN * (2 * torch.rand(times, *x.shape) - 1)
    shares = shares + (1 - shares.sum(0)) / times
    pieces = zip(x.chunk(parts, dim), shares.chunk(parts, dim + 1))
    return torch.cat([piece * share for piece, s in pieces for share in s], dim)


def widened(name: str, x: Tensor, shape: tuple) -> Tensor:
    """A tensor of the smaller network, in the larger one's shape."""
    for dim, (have, want) in enumerate(zip(x.shape, shape)):
        if have == want:
            continue
        if name == "last.bias" or (name == "last.weight" and dim == 1):  # more taps: what makes them comes last
            x = torch.cat([x, x.new_zeros(*x.shape[:dim], want - have, *x.shape[dim + 1 :])], dim)
            continue
        reads = "norm" not in name and dim == (0 if name in ("up.weight", "last.weight") else 1)
        x = (_shared if reads else _copied)(x, dim, want // have, _parts(name, dim))
    return x


def begin_as(model: MaskNet, other: MaskNet, name: str = "the other network") -> None:
    """Give `model` the weights of `other`, which may lack a guide, have fewer blocks or taps or an even part of the channels."""
    wanted, begun = model.state_dict(), other.state_dict()
    if set(begun) - set(wanted) or other.config.taps not in (0, model.config.taps):
        raise WavelldmError(f"{name} is guided by a latent or has more blocks or other taps; give --diffusion too, or set mask.blocks and mask.taps")
    if model.config.width % other.config.width or model.config.bands != other.config.bands:
        raise WavelldmError(f"{name} has {other.config.width} channels on {other.config.bands} bands; set mask.width to a multiple, and the same bands")
    grown = {key: widened(key, x, wanted[key].shape) for key, x in begun.items()}
    missing = model.load_state_dict(grown, strict=False).missing_keys
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key in missing and "norm" in key:
                value.zero_()  # what a new block adds
