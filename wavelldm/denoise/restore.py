"""What a mask cannot bring back, because nothing is left of it: stretches that were lost, and bands that are missing.

They are found by looking (digital silence amid sound; an edge in the spectrum above which there is nothing), what
belongs there is taken from the diffusion's latent through the codec's decoder, and Griffin-Lim's idea finds the
phases: keep the known bins as they are, keep the wanted magnitudes in the others, and go back and forth between
spectrum and sound.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio.blocks import Windows
from ..audio.stft import istft, magnitude, stft
from ..codec.model import Codec
from ..diffusion.latent import LatentDiffusion
from ..diffusion.samplers import FrameNoise

SHORTEST, LONGEST = 0.02, 0.6  # seconds of digital silence that count as lost; longer ones are pauses
DUST = 2.0**-14  # what is left after rounding to 16 bits
EDGE_DB = 25.0  # how far the spectrum falls at the edge of a missing band
BLOCK, MARGIN = 512, 192  # frames worked on at a time, and looked at on either side
BESIDE, LOUD_DB = 0.005, -25.0  # seconds beside a gap that must hold sound, no quieter than this against the whole
FADE = 0.005  # seconds over which the filled stretch and its surroundings pass into each other


def find_gaps(wav: Tensor, sr: int) -> Tensor:
    """wav (C, N) -> (C, N), True in runs of digital silence of 20 to 600 ms that begin and end abruptly, amid sound."""
    silent, beside = wav.abs() <= DUST, round(BESIDE * sr)
    gaps, loud = torch.zeros_like(silent), 10 ** (LOUD_DB / 10) * wav.square().mean(1)
    for sound, row, out, least in zip(wav, silent, gaps, loud):
        edges = torch.diff(row.int(), prepend=row.new_zeros(1).int(), append=row.new_zeros(1).int())
        starts, ends = (edges == 1).nonzero()[:, 0], (edges == -1).nonzero()[:, 0]
        for a, b in zip(starts.tolist(), ends.tolist()):
            if a < beside or b + beside > len(row) or not SHORTEST * sr <= b - a <= LONGEST * sr:
                continue
            if min(sound[a - beside : a].square().mean(), sound[b : b + beside].square().mean()) > least:
                out[a:b] = True
    return gaps


def find_cutoff(power: Tensor, sr: int) -> float | None:
    """Mean power per bin (bins,), 0 to sr / 2 -> the frequency above which a whole band is missing, or None."""
    level = 10 * (power + 1e-12).log10()
    hz = torch.linspace(0, sr / 2, len(level), device=power.device)
    best = None
    for edge in range(1_500, 7_100, 100):
        below = level[(hz > edge - 600) & (hz < edge - 100)]
        above = level[(hz > edge + 150) & (hz < 0.98 * min(8_000, sr / 2))]
        if len(above) and below.mean() - above.max() > EDGE_DB and below.mean() > level.max() - 60:
            best = float(edge)  # the highest such edge
    return best


def patch(cleaned: Tensor, wanted: Tensor, gaps: Tensor, cutoff: float | None, sr: int, iterations: int = 32) -> Tensor:
    """All (C, N) -> cleaned, but with the magnitudes of `wanted` where `gaps` is True and above `cutoff`."""
    n_fft, hop = 1024, 256
    known, target = (stft(x, n_fft, hop, n_fft, "center") for x in (cleaned, wanted))  # (C, bins, F)
    size = magnitude(target.real, target.imag)
    lost = F.max_pool1d(gaps.float()[:, None], n_fft // 2, hop, n_fft // 4)[:, 0]  # frames that mostly see a gap
    free = F.pad(lost, (0, max(0, known.shape[-1] - lost.shape[-1])))[:, None, : known.shape[-1]] > 0
    free = free.expand_as(size).clone()
    if cutoff is not None:
        free[:, round(cutoff / sr * n_fft) :] = True
    spec = torch.where(free, target, known)
    for _ in range(iterations):
        wav = istft(spec, n_fft, hop, n_fft, "center", cleaned.shape[-1])
        now = stft(wav, n_fft, hop, n_fft, "center")
        spec = torch.where(free, size * now / magnitude(now.real, now.imag), known)
    wav = istft(spec, n_fft, hop, n_fft, "center", cleaned.shape[-1])
    if cutoff is not None:
        return wav
    width = 2 * round(FADE * sr) + 1
    wide = F.max_pool1d(gaps.float()[:, None], width, 1, width // 2)
    fade = F.avg_pool1d(wide, width, 1, width // 2, count_include_pad=False)[:, 0]  # (C, N)
    return cleaned + fade * (wav - cleaned)


@torch.no_grad()
def redraw(codec: Codec, diffusion: LatentDiffusion, noisy: Tensor, gaps: Tensor, steps: int, seed: int) -> Tensor:
    """noisy (C, N) -> clean speech decoded from the diffusion's latent (C, N).

    One step takes the latent it expects; with more (ten at least), the frames that a gap touches are drawn, and the
    others are held (RePaint).
    """
    z_noisy = codec.encode(noisy[:, None], codec.sr)
    noise = FrameNoise(seed, shared=True)
    z = diffusion.sample(z_noisy, 1, noise=noise)
    if steps > 1 and gaps.any():
        padded = F.pad(gaps, (0, -gaps.shape[-1] % codec.hop))
        missing = padded.unflatten(-1, (-1, codec.hop)).any(-1)[:, None]  # (C, 1, T)
        z = diffusion.fill(z_noisy, missing, z, max(steps, 10), noise)
    return codec.decode(z, noisy.shape[-1])[:, 0]


class Restorer:
    """Repairs what a denoiser leaves of a recording, in long windows, so it answers some 11 seconds late.

    A block is a stack (3, C, any) at the codec's rate: the cleaned sound, the gain of what lies above the band, and
    the noisy sound. Only the first of them changes. Each channel is repaired as if it were alone.
    """

    def __init__(
        self, codec: Codec, diffusion: LatentDiffusion, cutoffs: Sequence[float | None], steps: int, seed: int
    ):
        self.codec, self.diffusion, self.cutoffs, self.steps, self.seed = codec, diffusion, cutoffs, steps, seed
        self.windows = Windows(codec.hop, MARGIN, BLOCK)

    def ready(self, count: int) -> int:
        """How many samples are out when `count` are in."""
        return self.windows.ready(count)

    def push(self, tracks: Tensor, last: bool = False) -> Tensor:
        """The next block -> what is repaired by now, or with `last` all that is left."""
        windows = self.windows.push(tracks) + (self.windows.finish() if last else [])
        return torch.cat([tracks[..., :0], *(self._repaired(*window) for window in windows)], dim=-1)

    def _repaired(self, window: Tensor, before: int, count: int) -> Tensor:
        """window (3, C, n) -> the samples of its `count` new frames."""
        cleaned, above, noisy = window
        gaps = find_gaps(noisy, self.codec.sr)
        rows = []
        for channel, cutoff in enumerate(self.cutoffs):
            row, gap = cleaned[channel, None], gaps[channel, None]
            if cutoff is not None or gap.any():
                wanted = redraw(self.codec, self.diffusion, noisy[channel, None], gap, self.steps, self.seed)
                row = patch(row, wanted, gap, cutoff, self.codec.sr)
            rows.append(row)
        first, last = before * self.codec.hop, (before + count) * self.codec.hop
        return torch.stack([torch.cat(rows), above, noisy])[..., first:last]
