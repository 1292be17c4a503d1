"""Self-attention over time with rotary positions (RoFormer, arXiv 2104.09864)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import WavelldmError
from .layers import require_causal


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

    def _split(self, x: Tensor) -> Tensor:
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

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """Keys, not yet rotated, and values of the window's past: (B, heads, 0 to window - 1, d) each."""
        require_causal(self)
        none = self.out.weight.new_zeros(batch, self.heads, 0, self.out.in_features // self.heads)
        return none, none

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        q, k, v = self._split(x)
        k, v = torch.cat([state[0], k], dim=-2), torch.cat([state[1], v], dim=-2)
        y = self._attend(q, k, v) if x.shape[-1] else x
        drop = max(0, k.shape[-2] - self.window + 1) if self.window else 0
        return y, (k[..., drop:, :], v[..., drop:, :])
