"""The modified discrete cosine transform: a spectrum of as many real numbers as there are samples, so nothing is kept twice.

Princen & Bradley (1986). Each frame is two hops long and gives one hop of numbers; what a frame alone gets wrong (its time
aliasing), its neighbours cancel. As a matrix its frames are orthonormal: an error has the same energy before and after.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .stft import overlap_add


@lru_cache(maxsize=8)
def basis(hop: int) -> Tensor:
    """(2 * hop, hop): sqrt(2 / M) w(n) cos(pi / M (n + 1/2 + M / 2) (k + 1/2)), with the sine window w."""
    n = torch.arange(2 * hop, dtype=torch.float64)[:, None] + 0.5
    k = torch.arange(hop, dtype=torch.float64) + 0.5
    window = (math.pi / (2 * hop) * n).sin()
    return (math.sqrt(2 / hop) * window * (math.pi / hop * (n + hop / 2) * k).cos()).float()


def frames(length: int, hop: int) -> int:
    return -(-length // hop) + 1  # one more than hops: the first and the last are half empty


def mdct(wav: Tensor, hop: int) -> Tensor:
    """wav (B, 1, N) -> coefficients (B, hop, T), T = ceil(N / hop) + 1."""
    padded = F.pad(wav[:, 0], (hop, hop + -wav.shape[-1] % hop))
    return (padded.unfold(-1, 2 * hop, hop) @ basis(hop).to(wav)).transpose(1, 2)


def imdct(coefficients: Tensor, length: int) -> Tensor:
    """Coefficients (B, hop, T) -> wav (B, 1, length), exactly what `mdct` was given."""
    hop = coefficients.shape[1]
    pieces = coefficients.transpose(1, 2) @ basis(hop).to(coefficients).T  # (B, T, 2 * hop)
    return overlap_add(pieces, hop)[:, None, hop : hop + length]
