"""Better codes for the same decoder: analysis by synthesis, as in CELP (Schroeder & Atal 1985), by gradient descent.

An encoder estimates in one pass which codes will sound right. Here the estimate is decoded, compared with the recording
and improved, step by step; the rounding passes gradients straight through, as in training. There are as many bits as
before, and the decoder is the same."""

import torch
from torch import Tensor

from ..errors import WavelldmError
from .losses import PULSE_WEIGHTS, MelLoss, pulse_distances
from .model import Codec
from .pulse import PulseDecoder

LEARNING_RATE = 0.05  # of Adam, falling to zero on a straight line


def check_pulsed(codec: Codec) -> None:
    if not isinstance(codec.decoder, PulseDecoder):
        raise WavelldmError(
            "codes can be searched only for a codec with the pulse decoder, such as voice16k; leave the search out"
        )


def search(
    codec: Codec, wav: Tensor, steps: int, codebooks: int | None = None, first: int = 0, start: Tensor | None = None
) -> Tensor:
    """wav (B, 1, N) at the codec's rate -> codes (B, K, T). `first`: the number of the first frame in the recording;
    `start`: numbers (B, T, G * d) to begin with, by default the encoder's."""
    check_pulsed(codec)
    quantiser = codec.quantiser
    count = codebooks or quantiser.codebooks
    keep = torch.full((len(wav),), count, device=wav.device)
    mels = MelLoss(codec.sr).to(wav.device).mels
    with torch.no_grad():
        u = quantiser.projected(codec.encode(wav, codec.sr)) if start is None else start  # (B, T, G * d)
    number = first + torch.arange(u.shape[1], device=wav.device)
    with torch.enable_grad():
        u = u.clone().requires_grad_()
        optimiser = torch.optim.Adam([u], LEARNING_RATE, betas=(0.9, 0.95))
        for step in range(steps):
            parts = pulse_distances(codec, quantiser.rounded(u, keep)[0], wav, mels, number)
            (u.grad,) = torch.autograd.grad(sum(weight * parts[name] for name, weight in PULSE_WEIGHTS.items()), u)
            optimiser.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / steps)
            optimiser.step()
    with torch.no_grad():
        return quantiser.rounded(u, keep)[1][:, :count]
