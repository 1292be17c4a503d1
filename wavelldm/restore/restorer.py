"""A recording with its damage, of tensors: see `light/restorer.py`, which does it, and where all is explained.

What is here is PyTorch's share: networks on any device, and gaps that are drawn in several steps.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .. import weights
from ..diffusion.samplers import FrameNoise
from ..light import restorer
from ..light.find import Damage
from ..light.restorer import BLOCK, CHUNK, HOP, KINDS, LONGEST, at_rate, wanted
from .filler import Filler, fill
from .latent import SpeechLatent

__all__ = ["BLOCK", "CHUNK", "HOP", "KINDS", "LONGEST", "Peaks", "Restorer", "as_mask", "at_rate", "headroom"]
__all__ += ["networks", "wanted"]


@lru_cache(maxsize=2)
def networks(device: torch.device) -> tuple[SpeechLatent, Filler]:
    """The latent and the filler that ship."""
    filler = weights.load("restore16k-filler", Filler, device)
    return weights.load(weights.needed("restore16k-filler", "latent"), SpeechLatent, device), filler


def as_mask(gaps: Sequence[tuple[int, int]], first: int, count: int) -> Tensor:
    """Gaps as samples of a recording -> True where they lie in its `count` samples from `first` on (count,)."""
    return torch.from_numpy(restorer.inside(gaps, first, count))


class Restorer(restorer.Restorer):
    """The same with tensors (3, C, any). `steps`: 0 for straight lines across a gap, 1 for what the network expects
    there, more for a draw."""

    def __init__(
        self,
        damages: Sequence[Damage],
        steps: int = 1,
        seed: int = 0,
        bold: bool = False,
        device: torch.device | str = "cpu",
        networks: Callable[[torch.device], tuple[SpeechLatent, Filler]] = networks,
    ):
        super().__init__(damages, steps, seed, bold)
        self.device, self.networks = torch.device(device), networks

    def push(self, tracks: Tensor, last: bool = False) -> Tensor:
        """The next block -> what is repaired by now, or with `last` all that is left."""
        return torch.from_numpy(super().push(tracks.cpu().numpy(), last)).to(tracks)

    @torch.no_grad()
    def fill(self, wav: np.ndarray, mask: np.ndarray, steps: int, frame: int) -> np.ndarray:
        """wav (n,) from this frame of the recording on, with the gaps of the mask filled."""
        latent, filler = self.networks(self.device) if steps else (None, None)
        rows, gaps = (torch.from_numpy(x)[None].to(self.device) for x in (wav, mask))
        noise = FrameNoise(self.seed, frame, shared=True)
        return fill(latent, filler, rows, gaps, steps, noise=noise)[0].cpu().numpy()


class Peaks(restorer.Peaks):
    """The same with tensors (C, any)."""

    def push(self, block: Tensor, last: bool = False) -> Tensor:
        """The next block -> what is repaired by now, or with `last` all that is left."""
        return torch.from_numpy(super().push(block.cpu().numpy(), last)).to(block)


def headroom(blocks: Iterable[Tensor], damages: Sequence[Damage], sr: int) -> float:
    """wav blocks (C, any) -> by how much the sound has to be turned down so that its peaks, put back, stay below full
    scale: 1 or less."""
    return restorer.headroom((block.numpy() for block in blocks), damages, sr)
