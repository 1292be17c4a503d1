"""Layers on x (B, C, T), each in one form for whole signals and one for chunks.

The convention: `layer(x)` takes the whole signal. `layer.stream(x, state) -> (y, state)` takes the next chunk, of any
length, and the state the call before returned (None at the start); the chunks' outputs, joined, equal the whole one's.
A layer without `stream` treats each frame by itself. Only layers built with `causal=True` stream.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import WavelldmError


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _must_be_causal(layer):
    if not layer.causal:
        raise WavelldmError("this model looks into the future and cannot stream; build it with causal=True")


class Conv1d(nn.Conv1d):
    """Convolution, T -> ceil(T / stride) frames. Causal: frame t sees nothing after sample (t + 1) * stride - 1."""

    def __init__(self, c_in, c_out, kernel, stride=1, dilation=1, groups=1, causal=False):
        super().__init__(c_in, c_out, kernel, stride, dilation=dilation, groups=groups)
        self.causal = causal
        self.span = (kernel - 1) * dilation + 1  # samples that one output frame sees
        self.extra = self.span - stride  # samples to add so that T whole strides give T frames
        if self.extra < 0:
            raise WavelldmError(f"stride {stride} needs a kernel that spans it, not {self.span} samples; lengthen it")

    def forward(self, x: Tensor) -> Tensor:
        left = self.extra if self.causal else self.extra // 2
        short = -x.shape[-1] % self.stride[0]
        return super().forward(F.pad(x, (left, self.extra - left + short)))

    def stream(self, x: Tensor, state: Tensor | None = None):
        """The state is the input that later frames still need: (B, C, extra to span - 1)."""
        _must_be_causal(self)
        if state is None:
            state = x.new_zeros(*x.shape[:2], self.extra)
        x, stride = torch.cat([state, x], dim=-1), self.stride[0]
        count = max(0, (x.shape[-1] - self.span) // stride + 1)
        if count == 0:
            return x.new_zeros(x.shape[0], self.out_channels, 0), x
        return super().forward(x[..., : (count - 1) * stride + self.span]), x[..., count * stride :]


class ConvTranspose1d(nn.ConvTranspose1d):
    """Transposed convolution, T -> T * stride samples. Causal: frame t reaches sample t * stride and later ones."""

    def __init__(self, c_in, c_out, kernel, stride, causal=False):
        super().__init__(c_in, c_out, kernel, stride)
        self.causal = causal
        self.extra = kernel - stride  # samples by which the last frame reaches beyond the end
        if self.extra < 0:
            raise WavelldmError(f"stride {stride} needs a kernel at least as long, not {kernel}; lengthen it")

    def forward(self, x: Tensor) -> Tensor:
        left = 0 if self.causal else self.extra // 2
        return super().forward(x)[..., left : left + x.shape[-1] * self.stride[0]]

    def stream(self, x: Tensor, state: Tensor | None = None):
        """The state is what past frames add to the samples to come: (B, C, extra)."""
        _must_be_causal(self)
        if state is None:
            state = x.new_zeros(x.shape[0], self.out_channels, self.extra)
        ready = x.shape[-1] * self.stride[0]
        if ready == 0:
            return x.new_zeros(x.shape[0], self.out_channels, 0), state
        y = F.conv_transpose1d(x, self.weight, None, self.stride)  # (B, C, ready + extra)
        y = y + F.pad(state, (0, ready))
        return y[..., :ready] + self.bias[:, None], y[..., ready:]


class Chain(nn.Sequential):
    """Layers one after the other; the state is the list of theirs."""

    def stream(self, x: Tensor, state: list | None = None):
        state = list(state or [None] * len(self))
        for i, layer in enumerate(self):
            if hasattr(layer, "stream"):
                x, state[i] = layer.stream(x, state[i])
            else:
                x = layer(x)
        return x, state


class Residual(Chain):
    """x + layers(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)

    def stream(self, x: Tensor, state: list | None = None):
        y, state = super().stream(x, state)
        return x + y, state


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each frame."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class ConvNeXtBlock(nn.Module):
    """ConvNeXt (arXiv 2201.03545) in 1-D: mix in time per channel, then mix channels per frame; layer scale."""

    def __init__(self, dim: int, expansion: int = 4, causal: bool = False):
        super().__init__()
        self.depthwise = Conv1d(dim, dim, 7, groups=dim, causal=causal)
        self.norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, expansion * dim)
        self.narrow = nn.Linear(expansion * dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), 0.1))

    def mix(self, y: Tensor) -> Tensor:
        y = self.norm(y.transpose(1, 2))  # (B, T, C)
        y = self.scale * self.narrow(F.gelu(self.widen(y)))
        return y.transpose(1, 2)  # (B, C, T)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.depthwise(x))

    def stream(self, x: Tensor, state: Tensor | None = None):
        y, state = self.depthwise.stream(x, state)
        return x + self.mix(y), state


def rotary(x: Tensor, start: int = 0, base: float = 10_000.0) -> Tensor:
    """RoFormer (arXiv 2104.09864, eq. 34): turn channels (i, i + d/2) of x (..., T, d) by position * base^(-2i/d)."""
    half = x.shape[-1] // 2
    positions = torch.arange(start, start + x.shape[-2], device=x.device, dtype=torch.float32)
    speed = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = positions[:, None] * speed  # (T, d/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class RotaryAttention(nn.Module):
    """Multi-head self-attention with rotary positions. The residual is the caller's: Residual(norm, attention).

    `window`: a frame sees the `window` frames that end with it (causal), or those less than `window` away (not causal).
    """

    def __init__(self, dim: int, heads: int = 8, window: int | None = None, causal: bool = False):
        super().__init__()
        if dim % (2 * heads):
            raise WavelldmError(f"{dim} channels do not divide into {heads} heads of even width; change one of them")
        self.heads, self.window, self.causal = heads, window, causal
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def _split(self, x: Tensor):
        """x (B, C, T) -> q, k, v (B, heads, T, C / heads)."""
        return self.qkv(x.transpose(1, 2)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The queries are the last of the keys' frames. Only distances matter, so counting starts at the first key."""
        past = k.shape[-2] - q.shape[-2]
        mask = None
        if self.causal or self.window:
            query = torch.arange(past, k.shape[-2], device=q.device)[:, None]
            ago = query - torch.arange(k.shape[-2], device=q.device)  # (T, K)
            mask = ago >= 0 if self.causal else torch.ones_like(ago, dtype=torch.bool)
            if self.window:
                mask = mask & (ago.abs() < self.window)
        y = F.scaled_dot_product_attention(rotary(q, past), rotary(k), v, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(-2)).transpose(1, 2)  # (B, C, T)

    def forward(self, x: Tensor) -> Tensor:
        return self._attend(*self._split(x))

    def stream(self, x: Tensor, state: tuple | None = None):
        """The state: keys, not yet turned, and values of the window's past, (B, heads, up to window - 1, d) each."""
        _must_be_causal(self)
        q, k, v = self._split(x)
        if state is not None:
            k, v = torch.cat([state[0], k], dim=-2), torch.cat([state[1], v], dim=-2)
        y = self._attend(q, k, v) if x.shape[-1] else x
        drop = max(0, k.shape[-2] - self.window + 1) if self.window else 0
        return y, (k[..., drop:, :], v[..., drop:, :])
