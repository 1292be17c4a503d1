"""What belongs into a gap: one network that expects it in one step, or draws it in several.

It is told what the damaged sound shows: its latent on straight lines across what is lost, the pitch likewise, how much
of each frame is known and how far the next known one lies, and 80 log-mels as they stand. Its place x_t lies on the way
from that latent with noise (t = 0) to the clean one (t = 1), as in rectified flow (arXiv 2209.03003), and it answers
with the end of the way. At t = 0 there is nothing to hold on to but what it was told, so one step is a regression, a
predictor; more steps draw one of the possible ends.

The way is Gaussian too: x_t - line = t r + (1 - t) spread eps with r = z - line. So DDPM, DDIM and DPM-Solver++ run on
the same weights, see `sample`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion import schedule
from ..diffusion.samplers import SAMPLERS, Callback, FrameNoise
from ..errors import WavelldmError
from ..nn.attention import RotaryAttention
from ..nn.layers import ChannelNorm, Conv1d
from .gaps import FULL, assemble, brought_to_length, interpolate, known_share, straight
from .latent import BANDS, UNIT, SpeechLatent, heard_pitch, level, seen

FARTHEST = 64  # frames: what lies further away counts as that far
TOLD = 6 + BANDS  # rows beside the latent that the network is told


@dataclass(frozen=True)
class FillerConfig:
    size: int = 48  # of the latent
    width: int = 192
    expansion: int = 2
    dilations: tuple = (1, 2, 4, 0, 1, 2, 4, 0, 1, 2)  # 0: attention
    heads: int = 4
    spread: float = 0.5  # deviation of the noise around the straight latent where the way begins
    schedule: str = "cosine"  # for samplers of the diffusion family
    steps: int = 1000


class Block(nn.Module):
    """ConvNeXt (arXiv 2201.03545) with a dilation, or attention; scale and shift come from the time (arXiv 2212.09748,
    with one table for all blocks and a share of each block's own)."""

    def __init__(self, width: int, dilation: int, expansion: int, heads: int):
        super().__init__()
        self.mix = Conv1d(width, width, 7, dilation=dilation, groups=width) if dilation else None
        self.norm = nn.LayerNorm(width)
        if dilation:
            self.widen, self.narrow = nn.Linear(width, expansion * width), nn.Linear(expansion * width, width)
        else:
            self.attention = RotaryAttention(width, heads)
        self.scale = nn.Parameter(torch.full((width,), 0.1))
        self.table = nn.Parameter(torch.zeros(2, width))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B, C, T), time (B, 2, C)."""
        y = x if self.mix is None else self.mix(x)
        y = self.norm(y.transpose(1, 2))  # (B, T, C)
        y = y * (1 + time[:, None, 0] + self.table[0]) + time[:, None, 1] + self.table[1]
        if self.mix is None:
            y = self.attention(y.transpose(1, 2)).transpose(1, 2)
        else:
            y = self.narrow(F.gelu(self.widen(y)))
        return x + (self.scale * y).transpose(1, 2)


@dataclass(frozen=True)
class Told:
    """What the network gets to know of a damaged sound."""

    z: Tensor  # (B, size, T), on straight lines where little is known
    line: Tensor  # (B, 2, T): octaves on straight lines, and voicing from 0 to 1
    share: Tensor  # (B, T): how much of each frame is known
    context: Tensor  # (B, TOLD, T)


class Filler(nn.Module):
    Config = FillerConfig

    def __init__(self, config: FillerConfig):
        super().__init__()
        c = self.config = config
        self.schedule = schedule.make(c.schedule, c.steps, zero_terminal=True)
        self.into = Conv1d(c.size + TOLD, c.width, 3)
        self.start = Conv1d(c.size, c.width, 1)  # x_t
        self.time = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 2 * c.width))
        self.blocks = nn.ModuleList(Block(c.width, d, c.expansion, c.heads) for d in c.dilations)
        self.norm, self.out = ChannelNorm(c.width), Conv1d(c.width, c.size + 2, 1)
        for layer in (self.start, self.time[-1], self.out):  # at first it answers with the straight lines
            nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)

    def forward(self, told: Told, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x_t (B, size, T) at t (B,) -> the clean latent (B, size, T); pitch (B, 2, T): octaves, logit of voicing."""
        angle = t[:, None] * torch.exp(torch.linspace(0, math.log(100.0), 16, device=x.device))
        time = self.time(torch.cat([angle.sin(), angle.cos()], 1)).unflatten(1, (2, -1))
        y = self.into(torch.cat([told.z, told.context], 1)) + self.start(x)
        for block in self.blocks:
            y = block(y, time)
        y = self.out(self.norm(y)).float()
        octaves = told.line[:, :1] + 0.3 * y[:, -2:-1]
        voiced = 4 * (told.line[:, 1:] - 0.5) + y[:, -1:]
        return told.z + y[:, :-2], torch.cat([octaves, voiced], 1)

    @torch.no_grad()
    def sample(
        self,
        told: Told,
        steps: int = 1,
        sampler: str = "bridge",
        noise: FrameNoise | None = None,
        callback: Callback = None,
    ) -> tuple[Tensor, Tensor]:
        """-> the clean latent (B, size, T), and the pitch as the decoder takes it (B, 2, T).

        "bridge" goes along straight lines (Euler). For the others the rest r / spread is what is diffused: z_t = a r +
        s eps lies at t = a / (a + s) of the way, and is a + s times as large.
        """
        if sampler not in SAMPLERS:
            raise WavelldmError(f"there is no sampler '{sampler}'; choose one of {', '.join(SAMPLERS)}")
        spread, noise, answers = self.config.spread, noise or FrameNoise(), []

        def end(x: Tensor, t: Tensor) -> Tensor:
            z, answer = self(told, x, t)
            answers.append(answer)
            return z

        def along_lines(x: Tensor, t: Tensor) -> Tensor:
            return end(x, 1 - (t + 1) / self.schedule.steps)

        def diffused(rest: Tensor, t: Tensor) -> Tensor:
            a, s = self.schedule.at(t)  # (B, 1, 1)
            x = told.z + spread * rest / (a + s)
            return (end(x, (a / (a + s))[:, 0, 0]) - told.z) / spread

        eps = noise(told.z)
        if sampler == "bridge":
            z = SAMPLERS[sampler](along_lines, told.z + spread * eps, self.schedule, steps, callback, noise)
        else:
            z = told.z + spread * SAMPLERS[sampler](diffused, eps, self.schedule, steps, callback, noise)
        return z, as_pitch(answers[0])  # of the first step, at t = 0: what it expects


def as_pitch(answer: Tensor) -> Tensor:
    """Octaves and logit of voicing (B, 2, T) -> octaves, -1 where there is no voice, and voicing from 0 to 1."""
    octaves = torch.where(answer[:, 1:] > 0, answer[:, :1].clamp(0.0, 3.1), -1.0)
    return torch.cat([octaves, answer[:, 1:].sigmoid()], 1)


def on_lines(pitch: Tensor, share: Tensor) -> Tensor:
    """Pitch (B, 2, T), the first row octaves (-1: no voice) -> (B, 2, T): octaves on straight lines wherever none is
    known, and voicing."""
    octaves, known = pitch[:, 0], share >= 0.85
    voiced = ((octaves >= 0) & known).float()
    line = interpolate(octaves[:, None], voiced, 0.5)
    line = torch.where(voiced.amax(1)[:, None, None] > 0, line, 1.0)
    return torch.cat([line, interpolate((octaves >= 0).float()[:, None], known.float(), 0.5)], 1)


def distances(share: Tensor) -> Tensor:
    """Shares (B, T) -> how far the last and the next known frame lie, in steps that grow (B, 2, T)."""
    known = (share >= FULL).to(share)[:, None]  # (B, 1, T)
    t = torch.ones_like(share[0]).cumsum(0)
    ago = (t[:, None] - t)[None]  # (1, T, T): frame t against the known one
    near = torch.where(known > 0, ago.abs(), FARTHEST)
    last, following = (torch.where(way, near, FARTHEST).amin(2) for way in (ago >= 0, ago <= 0))
    return (torch.stack([last, following], 1).clamp(max=FARTHEST) + 1).log() / 2


def context(line: Tensor, share: Tensor, mel: Tensor) -> Tensor:
    """Pitch on lines (B, 2, T), shares (B, T), log-mels of frames that know anything (B, 80, T) -> (B, TOLD, T)."""
    pitch = line - torch.tensor([1.0, 0.0], device=line.device)[:, None]
    lost = (share < FULL).float()[:, None]
    heard = (mel + 2) / 2 * (share > 0.1)[:, None]
    return torch.cat([pitch, share[:, None], lost, distances(share), heard], 1)


def tell(latent: SpeechLatent, wav: Tensor, gaps: Tensor, pitch: Tensor) -> Told:
    """wav (B, N) at the level that the latent knows, with zeros in its gaps; pitch (B, 2, T) as it was heard."""
    share = known_share(gaps)
    line = on_lines(pitch, share)
    mel = latent.mel(brought_to_length(seen(wav), share))
    z, _ = latent.encode(straight(wav, gaps) / UNIT)
    return Told(z, line, share, context(line, share, mel))


@torch.no_grad()
def fill(
    latent: SpeechLatent,
    filler: Filler,
    wav: Tensor,
    gaps: Tensor,
    steps: int = 1,
    sampler: str = "bridge",
    noise: FrameNoise | None = None,
) -> Tensor:
    """wav (B, N) at 16 kHz, gaps (B, N) -> wav (B, N) with its gaps filled. `steps`: 0 for straight lines, 1 for what
    the network expects, more for a draw."""
    wav = torch.where(gaps, 0.0, wav)
    if steps == 0:
        return assemble(wav, gaps, straight(wav, gaps))
    gain = level(wav, ~gaps)  # (B, 1)
    loud = wav * gain
    told = tell(latent, loud, gaps, heard_pitch(loud))
    z, pitch = filler.sample(told, steps, sampler, noise)
    return assemble(wav, gaps, latent.decode(z, pitch).exp() * UNIT / gain[..., None])
