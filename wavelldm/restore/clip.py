"""Clipped peaks put back: of all sounds whose samples lie at or beyond the ceilings where they were cut, and are the
known ones elsewhere, one with few strong frequencies at a time.

Nothing here is trained. Each round shrinks the weak bins of the spectrum, and then puts the known samples back
(consistent iterative shrinkage: Siedenburg, Kowalski & Dörfler, "Audio declipping with social sparsity", 2014, with
the threshold falling from round to round). Only frames that hold a clipped sample are computed, as no other has a say.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Tensor

from ..audio.blocks import Windows
from ..audio.stft import hann
from ..errors import AudioError

HOP, OVERLAP = 0.02, 4  # seconds, and frames over each sample: a frame is as long as both together
ROUNDS = 60
THRESHOLD = (0.05, 1.5e-5)  # in a frame's strongest band, first and last: 1 is a sine as high as the ceiling
WIDTH, TILT = 1_000.0, 0.7  # thresholds rise where powers, averaged over so many Hz, fall, with this exponent
RANGE = 1e-5  # least such power that counts, of the frame's strongest band
STEP, MOMENTUM = 1.3, 0.8  # of each round, and how much of the last way is gone on
TINY = 1e-9  # least ceiling
PIECE, MARGIN = 8.0, 0.5  # seconds that are worked on at once, and that they see beyond their ends


class Declipper:
    """Blocks (C, any) that were clipped at the ceilings low (C,) and high (C,) -> the same with their peaks, later.

    Samples between the ceilings stay as they are, to the bit; others only move outwards, so peaks may pass 1. A ceiling
    may be infinite. Channels do not know of each other. What comes out does not depend on the size of the blocks.
    """

    def __init__(self, low: Tensor, high: Tensor, sr: int):
        if low.ndim != 1 or low.shape != high.shape or not (low < high).all():
            raise AudioError("each channel has two ceilings, the low one below the high one: two tensors (channels,)")
        self.low, self.high, self.sr = low, high, sr
        self.hop = next_fast_len(max(1, round(HOP * sr)), real=True)
        self.windows = Windows(self.hop, round(MARGIN * sr / self.hop), round(PIECE * sr / self.hop))

    def ready(self, counts: np.ndarray) -> np.ndarray:
        """How many samples are out when so many are in."""
        return self.windows.ready(counts)

    def push(self, block: Tensor, last: bool = False) -> Tensor:
        """The next block -> what is certain by now, or with `last` all that is left."""
        if len(block) != len(self.low):
            raise AudioError(f"the sound has {len(block)} channels and there are ceilings for {len(self.low)}")
        parts = [block[:, :0]]
        for window, before, count in self.windows.push(block) + (self.windows.finish() if last else []):
            whole = _shrunk(window, self.low.to(window), self.high.to(window), self.sr, self.hop)
            parts.append(whole[:, before * self.hop : (before + count) * self.hop])
        return torch.cat(parts, dim=1)


def declip(wav: Tensor, low: Tensor, high: Tensor, sr: int) -> Tensor:
    """wav (C, N), clipped at the ceilings low (C,) and high (C,) of its channels -> (C, N) with its peaks."""
    return Declipper(low, high, sr).push(wav, last=True)


def _shrunk(wav: Tensor, low: Tensor, high: Tensor, sr: int, hop: int) -> Tensor:
    """wav (C, N), declipped at once. Sound is kept in slabs of one hop, of which OVERLAP in a row make a frame; only
    the slabs of frames that hold a clipped sample are kept."""
    above, below = wav >= high[:, None], wav <= low[:, None]  # (C, N)
    if not (above | below).any():
        return wav
    channels, n = wav.shape
    n_fft, side = OVERLAP * hop, (OVERLAP - 1) * hop
    count = -(-n // hop) + 2 * (OVERLAP - 1)

    def slabs(x: Tensor) -> Tensor:  # (C, N) -> (C * count, hop)
        return F.pad(x, (side, count * hop - n - side)).reshape(channels * count, hop)

    touched = slabs(above | below).any(1).reshape(channels, count)
    channel, first = touched.unfold(1, OVERLAP, 1).any(2).nonzero(as_tuple=True)  # of every frame (T,)
    place = (channel * count + first)[:, None] + torch.arange(OVERLAP, device=wav.device)  # (T, OVERLAP)
    kept = torch.zeros(channels * count, dtype=torch.bool, device=wav.device)
    kept[place.flatten()] = True
    place = (kept.cumsum(0) - 1)[place]  # among the kept slabs

    known, above, below = (slabs(x)[kept] for x in (wav, above, below))  # (K, hop)
    owner = torch.arange(channels, device=wav.device).repeat_interleave(count)[kept]
    least = torch.where(above, high[owner, None], known.masked_fill(below, -torch.inf))
    most = torch.where(below, low[owner, None], known.masked_fill(above, torch.inf))

    window = hann(n_fft, n_fft, wav.dtype, wav.device)
    back = window / window.square().reshape(OVERLAP, hop).sum(0).repeat(OVERLAP)
    ceiling = torch.maximum(low.abs().nan_to_num(posinf=0.0), high.abs().nan_to_num(posinf=0.0)).clamp_min(TINY)
    whole = ceiling[channel, None] * (n_fft / 4)  # (T, 1): the magnitude of a sine as high as the ceiling
    unit = (whole * _thresholds(known[place].flatten(1) * window / whole, sr)).square()  # (T, bins)

    last = here = known
    for i in range(ROUNDS):
        threshold = THRESHOLD[0] * (THRESHOLD[1] / THRESHOLD[0]) ** (i / (ROUNDS - 1))
        spec = torch.fft.rfft(here[place].flatten(1) * window)  # (T, bins)
        power = spec.real.square() + spec.imag.square()
        spec = spec * (power / (power + threshold**2 * unit))
        frames = torch.fft.irfft(spec, n_fft) * back
        now = torch.zeros_like(known).index_add_(0, place.flatten(), frames.reshape(-1, hop))
        now = torch.clamp(here + STEP * (now - here), least, most)
        here = torch.clamp(now + MOMENTUM * (now - last), least, most)
        last = now

    out = slabs(wav).index_put_((kept,), last)
    return out.reshape(channels, -1)[:, side : side + n]


def _thresholds(frames: Tensor, sr: int) -> Tensor:
    """Windowed frames (T, n_fft) as they were clipped -> how their thresholds differ over frequency (T, bins): they are
    1 in the strongest band, and high where a frame has little, since most of that is what the clipping made."""
    power = torch.fft.rfft(frames).abs().square()
    half = max(1, round(WIDTH * frames.shape[1] / sr / 2))
    smooth = F.avg_pool1d(power, 2 * half + 1, 1, half, count_include_pad=False)
    return (smooth / smooth.amax(1, keepdim=True).clamp_min(TINY**2) + RANGE) ** (-TILT / 2)
