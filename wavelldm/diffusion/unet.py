"""The latent U-Net: z_t (B, D, T), step t (B,) and condition (B, D, T) -> a prediction (B, D, T). 1-D, causal, any T.

Residual blocks of causal convolutions, coarser time by strides, rotary attention at the coarsest rate (WaveLLDM, arXiv
2508.21153, after DDPM's U-Net, arXiv 2006.11239, appendix B). The condition enters twice: beside z_t at the input, and
as a scale and a shift per channel and frame in every block (FiLM, arXiv 1709.07871), where the step adds its own.

It streams, as `nn.layers` says: `initial_state(batch)`, then `step(z_t, t, cond, state)` with the next frames.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import WavelldmError
from ..nn.attention import RotaryAttention
from ..nn.layers import Chain, ChannelNorm, Conv1d, ConvTranspose1d, Residual


@dataclass(frozen=True)
class UNetConfig:
    """The latent U-Net; one entry of dims per rate, each `stride` times slower than the one before."""

    dims: tuple = (160, 192, 256)  # channels at each rate
    depth: int = 1  # blocks before and after the coarser rates, at each rate
    stride: int = 2
    kernel: int = 3
    embedding: int = 192  # channels of the embedded step
    cond_dim: int = 96  # channels of the condition that scales and shifts
    heads: int = 4
    window: int = 64  # coarsest frames that attention looks back
    dropout: float = 0.0
    causal: bool = True  # frame t sees no later frame


def step_embedding(t: Tensor, dim: int) -> Tensor:
    """t (B,) -> sines and cosines at dim / 2 speeds from 1 to 1 / 10,000 per step (arXiv 1706.03762, section 3.5), (B,
    dim)."""
    speed = torch.exp(-math.log(10_000) * torch.arange(dim // 2, device=t.device, dtype=torch.float32) / (dim // 2))
    angle = t.float()[:, None] * speed
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class Block(nn.Module):
    """x + two causal convolutions of it; between them condition and step scale and shift every channel (FiLM)."""

    def __init__(self, c_in: int, dim: int, c: UNetConfig):
        super().__init__()
        self.before, self.first = ChannelNorm(c_in), Conv1d(c_in, dim, c.kernel, causal=c.causal)
        self.between, self.second = ChannelNorm(dim), Conv1d(dim, dim, c.kernel, causal=c.causal)
        self.by_step, self.by_cond = nn.Linear(c.embedding, 2 * dim), nn.Conv1d(c.cond_dim, 2 * dim, 1)
        self.skip = nn.Conv1d(c_in, dim, 1) if c_in != dim else nn.Identity()
        self.dropout = nn.Dropout(c.dropout)
        for layer in (self.by_step, self.by_cond, self.second):
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.second.weight)  # at first every block is the identity

    def film(self, y: Tensor, time: Tensor, cond: Tensor) -> Tensor:
        scale, shift = (self.by_step(time)[:, :, None] + self.by_cond(cond)).chunk(2, dim=1)  # (B, dim, T) each
        return self.dropout(F.silu(self.between(y) * (1 + scale) + shift))

    def forward(self, x: Tensor, time: Tensor, cond: Tensor) -> Tensor:
        y = self.first(F.silu(self.before(x)))
        return self.skip(x) + self.second(self.film(y, time, cond))

    def initial_state(self, batch: int) -> tuple:
        return self.first.initial_state(batch), self.second.initial_state(batch)

    def step(self, x: Tensor, time: Tensor, cond: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        y, first = self.first.step(F.silu(self.before(x)), state[0])
        y, second = self.second.step(self.film(y, time, cond), state[1])
        return self.skip(x) + y, (first, second)


class Middle(nn.Module):
    """The coarsest rate: blocks with attention between them."""

    def __init__(self, dim: int, c: UNetConfig):
        super().__init__()
        self.first, self.second = Block(dim, dim, c), Block(dim, dim, c)
        self.attention = Residual(ChannelNorm(dim), RotaryAttention(dim, c.heads, c.window, c.causal))

    def forward(self, x: Tensor, time: Tensor, cond: Tensor) -> Tensor:
        return self.second(self.attention(self.first(x, time, cond)), time, cond)

    def initial_state(self, batch: int) -> tuple:
        return tuple(layer.initial_state(batch) for layer in (self.first, self.attention, self.second))

    def step(self, x: Tensor, time: Tensor, cond: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        x, first = self.first.step(x, time, cond, state[0])
        x, attention = self.attention.step(x, state[1])
        x, second = self.second.step(x, time, cond, state[2])
        return x, (first, attention, second)


class Level(nn.Module):
    """One rate: blocks, the coarser rates below, and blocks again that see the outputs of both.

    A coarse frame knows the whole stride it stands for, so a causal network hands it to the next stride, not to its
    own."""

    def __init__(self, dim: int, below_dim: int, below: nn.Module, c: UNetConfig):
        super().__init__()
        self.stride, self.causal = c.stride, c.causal
        self.down = Conv1d(dim, below_dim, 2 * c.stride, c.stride, causal=c.causal)
        self.cond_down = Conv1d(c.cond_dim, c.cond_dim, 2 * c.stride, c.stride, causal=c.causal)
        self.below = below
        self.up = ConvTranspose1d(below_dim, dim, 2 * c.stride, c.stride, causal=c.causal)
        self.before = nn.ModuleList(Block(dim, dim, c) for _ in range(c.depth))
        self.after = nn.ModuleList(Block(2 * dim if i == 0 else dim, dim, c) for i in range(c.depth))

    def forward(self, x: Tensor, time: Tensor, cond: Tensor) -> Tensor:
        for block in self.before:
            x = block(x, time, cond)
        y = self.below(self.down(x), time, self.cond_down(cond))  # (B, below, ceil(T / stride))
        if self.causal:
            y = F.pad(y, (1, 0))
        x = torch.cat([x, self.up(y)[..., : x.shape[-1]]], dim=1)  # (B, 2 * dim, T)
        for block in self.after:
            x = block(x, time, cond)
        return x

    def initial_state(self, batch: int) -> dict:
        """Those of all layers, and in `ahead` the coarse rate's output for frames that are still to come."""
        layers = ("down", "cond_down", "below")
        state = {name: getattr(self, name).initial_state(batch) for name in layers}
        state["before"] = [block.initial_state(batch) for block in self.before]
        state["after"] = [block.initial_state(batch) for block in self.after]
        nothing = self.up.weight.new_zeros(batch, self.up.in_channels, 1)  # in `forward` the pad before the first frame
        state["ahead"], state["up"] = self.up.step(nothing, self.up.initial_state(batch))
        return state

    def step(self, x: Tensor, time: Tensor, cond: Tensor, state: dict) -> tuple[Tensor, dict]:
        new = {"before": [], "after": []}
        for block, block_state in zip(self.before, state["before"]):
            x, block_state = block.step(x, time, cond, block_state)
            new["before"].append(block_state)
        y, new["down"] = self.down.step(x, state["down"])
        coarse_cond, new["cond_down"] = self.cond_down.step(cond, state["cond_down"])
        new["below"] = state["below"]
        if y.shape[-1]:
            y, new["below"] = self.below.step(y, time, coarse_cond, state["below"])
        y, new["up"] = self.up.step(y, state["up"])
        y = torch.cat([state["ahead"], y], dim=-1)
        x, new["ahead"] = torch.cat([x, y[..., : x.shape[-1]]], dim=1), y[..., x.shape[-1] :]
        for block, block_state in zip(self.after, state["after"]):
            x, block_state = block.step(x, time, cond, block_state)
            new["after"].append(block_state)
        return x, new


class UNet(nn.Module):
    """z_t (B, D, T), t (B,) long, cond (B, D, T) or None -> (B, D, T).

    Without a condition (all items: cond=None; single ones: where `drop` (B,) is True) a learnt vector takes its place,
    so that one network knows both p(z) and p(z | noisy latent), which classifier-free guidance needs (arXiv
    2207.12598)."""

    def __init__(self, config: UNetConfig, latent_dim: int):
        super().__init__()
        c = self.config = config
        if not c.dims:
            raise WavelldmError("a U-Net has at least one width in dims; give one for each rate")
        self.latent_dim, self.causal = latent_dim, c.causal
        self.embed = nn.Sequential(
            nn.Linear(c.dims[0], c.embedding), nn.SiLU(), nn.Linear(c.embedding, c.embedding), nn.SiLU()
        )
        self.nothing = nn.Parameter(torch.zeros(latent_dim, 1))
        self.condition = Chain(Conv1d(latent_dim, c.cond_dim, c.kernel, causal=c.causal), nn.SiLU())
        self.enter = Conv1d(2 * latent_dim, c.dims[0], c.kernel, causal=c.causal)
        network = Middle(c.dims[-1], c)
        for dim, below in zip(c.dims[-2::-1], c.dims[:0:-1]):
            network = Level(dim, below, network, c)
        self.network = network
        self.leave = Chain(ChannelNorm(c.dims[0]), nn.SiLU(), nn.Conv1d(c.dims[0], latent_dim, 1))
        self.past = nn.Linear(c.embedding, 2 * latent_dim)
        for layer in (self.leave[-1], self.past):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def _check(self, z_t: Tensor, t: Tensor, cond: Tensor | None):
        if z_t.ndim != 3 or z_t.shape[1] != self.latent_dim or (cond is not None and cond.shape != z_t.shape):
            given = "none" if cond is None else tuple(cond.shape)
            raise WavelldmError(
                f"z_t and cond are (batch, {self.latent_dim}, frames) and alike, not {tuple(z_t.shape)} and {given}"
            )
        if t.shape != z_t.shape[:1]:
            raise WavelldmError(f"t is one step for each of the {len(z_t)} items, (batch,), not {tuple(t.shape)}")

    def inputs(self, z_t: Tensor, t: Tensor, cond: Tensor | None, drop: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        self._check(z_t, t, cond)
        nothing = self.nothing.expand_as(z_t)
        cond = nothing if cond is None else cond
        if drop is not None:
            cond = torch.where(drop[:, None, None], nothing, cond)
        return torch.cat([z_t, cond], dim=1), self.embed(step_embedding(t, self.config.dims[0])), cond

    def copied(self, x: Tensor, time: Tensor) -> Tensor:
        """A skip connection around the whole network: z_t and cond, each channel times a factor that depends on the
        step. eps and v hold all the noise of z_t, and that does not fit through a network narrower than the latent."""
        return (x * self.past(time)[:, :, None]).unflatten(1, (2, -1)).sum(1)  # (B, D, T)

    def forward(self, z_t: Tensor, t: Tensor, cond: Tensor | None = None, drop: Tensor | None = None) -> Tensor:
        x, time, cond = self.inputs(z_t, t, cond, drop)
        return self.leave(self.network(self.enter(x), time, self.condition(cond))) + self.copied(x, time)

    def initial_state(self, batch: int) -> tuple:
        return tuple(layer.initial_state(batch) for layer in (self.enter, self.condition, self.network))

    def step(self, z_t: Tensor, t: Tensor, cond: Tensor | None, state: tuple) -> tuple[Tensor, tuple]:
        """The next frames (B, D, any) of z_t and cond, always at the same t -> as many frames of the prediction."""
        if z_t.shape[-1] == 0:
            return z_t, state
        x, time, cond = self.inputs(z_t, t, cond, None)
        copied = self.copied(x, time)
        x, enter = self.enter.step(x, state[0])
        cond, condition = self.condition.step(cond, state[1])
        x, network = self.network.step(x, time, cond, state[2])
        return self.leave(x) + copied, (enter, condition, network)
