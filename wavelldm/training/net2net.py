"""Begin a larger mask network as a smaller one that is trained already: at first both do the same (Net2Net, arXiv
1511.05641).

More channels: each stands several times, and whatever reads it shares its weight unevenly among the copies, so that
their gradients differ. More blocks, taps of the filter, frames ahead, bands that it covers, the way back through time,
or a guide: they add nothing yet. A codec that looks both ways begins a causal one (`backwards`), one without a
correction of its spectra one with it (`as_corrected`).
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from ..codec.model import Codec
from ..codec.pulse import BANDS
from ..denoise.mask import MaskNet
from ..errors import WavelldmError
from ..nn.layers import Conv1d

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


def _further(x: Tensor, dim: int, ahead: int, more: int) -> Tensor:
    """What makes the filter, for `more` frames ahead: real parts, then imaginary ones, the new ones zero."""
    rest, real, imag = x.split([x.shape[dim] - 2 * ahead, ahead, ahead], dim)
    new = x.new_zeros(*x.shape[:dim], more - ahead, *x.shape[dim + 1 :])
    return torch.cat([rest, real, new, imag, new], dim)


def widened(name: str, x: Tensor, shape: tuple) -> Tensor:
    """A tensor of the smaller network, in the larger one's shape."""
    for dim, (have, want) in enumerate(zip(x.shape, shape)):
        if have == want:
            continue
        if name.endswith(".out.weight") and dim == 1 and want == 2 * x.shape[0]:  # the way back through time
            x = torch.cat([x, torch.zeros_like(x)], dim)
            continue
        if name == "last.bias" or (
            name in ("first.weight", "last.weight") and dim == 1
        ):  # frames ahead, taps: the new ones come last
            x = torch.cat([x, x.new_zeros(*x.shape[:dim], want - have, *x.shape[dim + 1 :])], dim)
            continue
        reads = "norm" not in name and dim == (0 if name in ("up.weight", "last.weight") else 1)
        x = (_shared if reads else _copied)(x, dim, want // have, _parts(name, dim))
    return x


def widen_from(model: MaskNet, other: MaskNet, name: str = "the other network") -> None:
    """Give `model` the weights of `other`, which may lack a guide, have fewer blocks, taps or frames ahead, or an even
    part of the channels, hear time one way only, or filter the low bins alone."""
    wanted, begun = model.state_dict(), other.state_dict()
    ours, its = model.config, other.config
    filtered = its.taps == ours.taps and its.ahead <= ours.ahead or its.taps == its.ahead == 0
    if its.both_ways > ours.both_ways or its.full > ours.full:
        raise WavelldmError(
            f"{name} hears time both ways or filters all bands; --set both_ways and full as it has them"
        )
    if set(begun) - set(wanted) or not filtered:
        raise WavelldmError(
            f"{name} is guided by a latent or has more blocks, other taps or more frames ahead; give --diffusion too, "
            "or --set blocks, taps and ahead"
        )
    if its.both_ways and its.width != ours.width:
        raise WavelldmError(f"{name} hears time both ways; widen the network that it began as, or --set its width")
    if ours.width % its.width or ours.bands != its.bands:
        raise WavelldmError(
            f"{name} has {its.width} channels on {its.bands} bands; --set width to a multiple, and the same bands"
        )
    if 0 < its.ahead < ours.ahead:
        for key, dim in (("last.weight", 1), ("last.bias", 0)):
            begun[key] = _further(begun[key], dim, its.ahead, ours.ahead)
    grown = {key: widened(key, x, wanted[key].shape) for key, x in begun.items()}
    missing = model.load_state_dict(grown, strict=False).missing_keys
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key in missing and "norm" in key:
                value.zero_()  # what a new block adds
            elif key in missing and key == "reach":
                value[ours.low :] = 0  # bands that had no filter


def as_corrected(model: Codec, other: Codec) -> dict:
    """The weights of `other` for `model`, if only one of the two corrects the spectra of its pulses: what `other` lacks
    corrects nothing yet, what `model` lacks is gone."""
    ours, begun = model.state_dict(), other.state_dict()
    for name in ("decoder.gains.weight", "decoder.gains.bias"):
        if begun[name].shape[1:] == ours[name].shape[1:]:
            begun[name] = torch.cat([begun[name][: 2 * BANDS], ours[name][2 * BANDS :]])
    return ours | {k: v for k, v in begun.items() if k in ours or not k.startswith("decoder.correction.")}


@torch.no_grad()
def backwards(codec: Codec) -> Codec:
    """A copy of a codec whose convolutions look back alone once they are padded as causal ones: what looked at the
    frame itself becomes the last weight, what looked back comes before it, what looked ahead is gone."""
    codec = copy.deepcopy(codec)
    for layer in codec.modules():
        if isinstance(layer, Conv1d) and layer.stride[0] == 1:
            weight, ahead = layer.weight, layer.extra - layer.extra // 2
            layer.weight.copy_(F.pad(weight, (ahead, 0))[..., : weight.shape[-1]])
    return codec
