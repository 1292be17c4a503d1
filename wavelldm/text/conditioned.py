"""The latent diffusion that text steers: a U-Net of transformer blocks over the places of a sound latent.

AudioLDM (arXiv 2301.12503) with the text itself as condition. Text comes in twice: the vector of the whole caption
scales and shifts what every block sees (FiLM, arXiv 1709.07871, eq. 2), and every place can look at every token
(cross-attention, arXiv 2112.10752, eq. 3). Blocks of the first half hand what they found to those of the second (the
long skips of U-ViT, arXiv 2209.12152, section 3). Without text a learnt token stands in, for classifier-free guidance
(arXiv 2207.12598, eq. 6).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion.samplers import Denoise
from ..diffusion.schedule import Schedule, convert, make
from ..diffusion.unet import step_embedding
from ..errors import WavelldmError
from ..nn.attention import rotary

Condition = tuple[Tensor, Tensor, Tensor]  # vectors of tokens (B, L, C), which are real (B, L), of the whole (B, J)
WAVES = 4  # of the place in the whole


@dataclass(frozen=True)
class TextDiffusionConfig:
    size: int = 24  # channels of the latent
    patch: int = 4  # places that become one token
    width: int = 128
    depth: int = 8  # blocks, an even number
    heads: int = 4
    text: int = 96  # channels of the tokens' vectors
    joint: int = 128  # of the whole caption's
    schedule: str = "scaled_linear"  # with its end moved to pure noise


def place_waves(count: int, seconds: float, device: torch.device) -> Tensor:
    """Where each of `count` places lies in the whole, and how long that is: (count, 2 WAVES + 1)."""
    share = (torch.arange(count, device=device) + 0.5) / count
    angle = math.pi * share[:, None] * torch.arange(1, WAVES + 1, device=device)
    length = torch.full((count, 1), math.log(seconds / 4), device=device)
    return torch.cat([angle.cos(), angle.sin(), length], 1)


class TextBlock(nn.Module):
    """Self-attention, a look at the text, MLP; FiLM before the first and the last, and gates behind them."""

    def __init__(self, c: TextDiffusionConfig):
        super().__init__()
        w = c.width
        self.heads = c.heads
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(w, elementwise_affine=i == 1) for i in range(3))
        self.qkv, self.out = nn.Linear(w, 3 * w), nn.Linear(w, w)
        self.ask, self.told, self.answer = nn.Linear(w, w), nn.Linear(c.text, 2 * w), nn.Linear(w, w)
        self.mlp = nn.Sequential(nn.Linear(w, 4 * w), nn.GELU(approximate="tanh"), nn.Linear(4 * w, w))
        self.film = nn.Parameter(torch.zeros(6, w))  # added to what all blocks share (arXiv 2310.00426, section 2.3)
        nn.init.zeros_(self.answer.weight), nn.init.zeros_(self.answer.bias)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, T, d)

    def look(self, x: Tensor, states: Tensor, real: Tensor) -> Tensor:
        """Cross-attention: x (B, T, W) asks, the tokens (B, L, C) answer."""
        k, v = self.told(states).chunk(2, -1)
        y = F.scaled_dot_product_attention(*map(self.split, (self.ask(x), k, v)), attn_mask=real[:, None, None])
        return self.answer(y.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, film: Tensor, states: Tensor, real: Tensor) -> Tensor:
        a, b, gate, c, d, gate2 = (film + self.film)[:, None].unbind(2)  # (B, 1, W) each
        q, k, v = map(self.split, self.qkv(self.norm1(x) * (1 + a) + b).chunk(3, -1))
        y = F.scaled_dot_product_attention(rotary(q), rotary(k), v)
        x = x + gate * self.out(y.transpose(1, 2).flatten(2))
        x = x + self.look(self.norm2(x), states, real)
        return x + gate2 * self.mlp(self.norm3(x) * (1 + c) + d)


class TextDiffusion(nn.Module):
    """z_t (B, D, T), t (B,) long, a condition -> v (B, D, T)."""

    Config = TextDiffusionConfig

    def __init__(self, config: TextDiffusionConfig):
        super().__init__()
        c = self.config = config
        if c.depth % 2 or c.width % (2 * c.heads):
            raise WavelldmError("depth is an even number, and width a multiple of twice the heads; change them")
        w, inside = c.width, c.size * c.patch
        self.enter, self.place = nn.Conv1d(inside, w, 3, padding=1), nn.Linear(2 * WAVES + 1, w)
        self.step = nn.Sequential(nn.Linear(w, w), nn.SiLU(), nn.Linear(w, w))
        self.whole = nn.Linear(c.joint, w)
        self.film = nn.Sequential(nn.SiLU(), nn.Linear(w, 6 * w))
        self.blocks = nn.ModuleList(TextBlock(c) for _ in range(c.depth))
        self.skips = nn.ModuleList(nn.Linear(2 * w, w) for _ in range(c.depth // 2))
        self.norm, self.leave = nn.LayerNorm(w), nn.Conv1d(w, inside, 3, padding=1)
        self.nothing, self.nothing_whole = nn.Parameter(torch.zeros(c.text)), nn.Parameter(torch.zeros(c.joint))
        nn.init.zeros_(self.leave.weight), nn.init.zeros_(self.leave.bias)
        with torch.no_grad():  # gates begin half open
            for block in self.blocks:
                block.film[[2, 5]] = 0.5
        self.rate = 25.0  # places a second

    @property
    def schedule(self) -> Schedule:
        return make(self.config.schedule, zero_terminal=True)

    def without(self, condition: Condition, withheld: Tensor) -> Condition:
        """The condition, replaced by the learnt "nothing" where `withheld` (B,) says so."""
        states, real, whole = condition
        first = torch.arange(real.shape[1], device=real.device) == 0
        gone = withheld[:, None]
        return (
            torch.where(gone[..., None], self.nothing.to(states.dtype), states),
            torch.where(gone, first, real),
            torch.where(gone, self.nothing_whole.to(whole.dtype), whole),
        )

    def forward(self, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        c, count = self.config, z_t.shape[-1]
        states, real, whole = condition
        x = F.pad(z_t, (0, -count % c.patch), mode="replicate")
        x = x.unflatten(2, (-1, c.patch)).transpose(2, 3).flatten(1, 2)  # (B, D patch, T / patch)
        x = self.enter(x).transpose(1, 2)  # (B, T / patch, W)
        x = x + self.place(place_waves(x.shape[1], count / self.rate, x.device))
        # cosines first
        step = self.step(step_embedding(t, c.width).roll(c.width // 2, 1).to(x.dtype)) + self.whole(8 * whole)
        film = self.film(step).unflatten(1, (6, -1))  # (B, 6, W)
        kept = []
        for i, block in enumerate(self.blocks):
            if i >= c.depth // 2:
                x = self.skips[i - c.depth // 2](torch.cat([x, kept.pop()], -1))
            x = block(x, film, states, real)
            if i < c.depth // 2:
                kept.append(x)
        y = self.leave(self.norm(x).transpose(1, 2))  # (B, D patch, T / patch)
        return y.unflatten(1, (c.size, c.patch)).transpose(2, 3).flatten(2)[..., :count]


def guided(
    model: TextDiffusion, condition: Condition, guidance: float, against: Condition | None = None, rescale: float = 0.5
) -> Denoise:
    """denoise(z_t, t) -> z0 for the samplers: away from what `against` says (by default: from no text at all), by
    `guidance` times the way to what the text says (arXiv 2207.12598, eq. 6).

    `rescale`: how much of the spread that guidance adds is taken back (arXiv 2305.08891, eq. 15 and 16).
    """
    schedule = model.schedule
    everything = torch.ones(len(condition[0]), dtype=torch.bool, device=condition[0].device)
    other = model.without(condition, everything) if against is None else against
    both = _stacked(condition, other)

    def denoise(z_t: Tensor, t: Tensor) -> Tensor:
        if guidance == 1:
            return convert(schedule, model(z_t, t, condition), z_t, t, "v", "z0")
        v, v_other = model(torch.cat([z_t, z_t]), torch.cat([t, t]), both).chunk(2)
        z0, z0_other = (convert(schedule, x, z_t, t, "v", "z0") for x in (v, v_other))
        far = z0_other + guidance * (z0 - z0_other)
        axes = tuple(range(1, z_t.ndim))
        back = z0.std(axes, keepdim=True) / far.std(axes, keepdim=True).clamp_min(1e-6)
        return far * (rescale * back + 1 - rescale)

    return denoise


def in_windows(denoise: Denoise, window: int, hop: int) -> Denoise:
    """denoise for longer latents: windows of `window` places, `hop` apart, each estimated by itself; where they overlap
    their estimates are faded into each other, so that all agree in the end (arXiv 2302.08113, eq. 5)."""

    def joined(z_t: Tensor, t: Tensor) -> Tensor:
        count = z_t.shape[-1]
        starts = [*range(0, count - window, hop), count - window] if count > window else [0]
        rise = torch.minimum(torch.arange(window) + 1, window - torch.arange(window)).clamp(max=window - hop).to(z_t)
        total, weight = torch.zeros_like(z_t), torch.zeros_like(z_t[:1, :1])
        for start in starts:
            part = slice(start, start + window)
            share = rise[: count - start]
            total[..., part] += denoise(z_t[..., part], t) * share
            weight[..., part] += share
        return total / weight

    return joined


def _stacked(a: Condition, b: Condition) -> Condition:
    """Two conditions as one batch; the shorter captions are padded."""
    longest = max(a[0].shape[1], b[0].shape[1])
    rows = []
    for states, real, _ in (a, b):
        more = longest - states.shape[1]
        rows.append((F.pad(states, (0, 0, 0, more)), F.pad(real, (0, more))))
    return torch.cat([r[0] for r in rows]), torch.cat([r[1] for r in rows]), torch.cat([a[2], b[2]])
