"""Finite scalar quantisation: round every channel of a bounded vector to a few levels; no codebook to learn.

FSQ is Mentzer et al., arXiv 2309.15505; the residual form rounds what the stage before left over, with L times finer
steps; the grouped form gives each slice of the latent's channels its own. Three names for the same thing, exactly
convertible: `digits (..., d)`, integers 0 to L-1 per channel; `vector (..., d)`, their place in [-1, 1]; `code (...)`,
one integer for all d (mixed radix, first channel fastest). Everything runs in float32 whatever the autocast.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import WavelldmError

ABSENT = -1  # the code of a codebook that was not sent


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """The value of `rounded`, to the bit, with the gradient of x (2309.15505, section 3.1)."""
    return rounded.detach() + (x - x.detach())


def check_levels(levels: Sequence[int]) -> tuple:
    if not levels or any(int(level) != level or level < 2 for level in levels):
        raise WavelldmError(f"FSQ levels are whole numbers of at least 2, not {tuple(levels)}")
    if math.prod(levels) > 2**31:
        raise WavelldmError(f"FSQ levels {tuple(levels)} make more than 2^31 entries; use fewer or smaller ones")
    return tuple(int(level) for level in levels)


def digits_to_code(digits: Tensor, levels: Sequence[int]) -> Tensor:
    """(..., d) -> (...): sum of digit_i times the product of the levels before it."""
    basis = [math.prod(levels[:i]) for i in range(len(levels))]
    return (digits.long() * torch.tensor(basis, device=digits.device)).sum(-1)


def code_to_digits(code: Tensor, levels: Sequence[int]) -> Tensor:
    """(...) -> (..., d), the inverse of `digits_to_code`."""
    basis = [math.prod(levels[:i]) for i in range(len(levels))]
    size = torch.tensor(levels, device=code.device)
    return code.long()[..., None] // torch.tensor(basis, device=code.device) % size


def whole(digits: Tensor, size: Tensor) -> Tensor:
    """Float digits -> integers that lie in range even if the network produced NaN or infinity."""
    return torch.minimum(digits.nan_to_num(0.0).clamp(min=0), size - 1).long()


class FSQ(nn.Module):
    """The quantiser of the paper, with its bound (appendix A.1): tanh, and half a step of offset where L is even."""

    def __init__(self, levels: Sequence[int] = (8, 8, 8, 6, 5)):
        super().__init__()
        self.levels = check_levels(levels)
        self.register_buffer("size", torch.tensor(self.levels, dtype=torch.float32), persistent=False)  # (d,)

    def bound(self, x: Tensor, eps: float = 1e-3) -> Tensor:
        half = (self.size - 1) * (1 + eps) / 2
        offset = torch.where(self.size % 2 == 0, 0.5, 0.0)
        return torch.tanh(x + torch.atanh(offset / half)) * half - offset

    def vector(self, digits: Tensor) -> Tensor:
        half = self.size // 2
        return (digits - half) / half

    def digits(self, vector: Tensor) -> Tensor:
        half = self.size // 2
        return whole((vector * half + half).round(), self.size)

    def decode(self, code: Tensor) -> Tensor:
        return self.vector(code_to_digits(code, self.levels))  # (...) -> (..., d)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (..., d) of any size -> vector (..., d) in [-1, 1], code (...)."""
        with torch.autocast(x.device.type, enabled=False):
            half = self.size // 2
            bounded = self.bound(x.float())
            digits = whole(bounded.round() + half, self.size)
            return straight_through(bounded / half, self.vector(digits)), digits_to_code(digits, self.levels)


class ResidualFSQ(nn.Module):
    """Stages of FSQ on what the stage before left over; stage i counts in steps L**i times finer.

    Levels lie symmetrically, -1 to 1 with both ends used (2411.19842, section 3.2), and the input is softly clamped to
    half a step beyond them. One straight-through step spans all stages, so their number does not scale the gradient.
    """

    def __init__(self, levels: Sequence[int] = (8, 8, 8, 6, 5), stages: int = 1):
        super().__init__()
        self.levels, self.stages = check_levels(levels), stages
        size = torch.tensor(self.levels, dtype=torch.float32)
        self.register_buffer("size", size, persistent=False)  # (d,)
        self.register_buffer("scales", torch.stack([size**-i for i in range(stages)]), persistent=False)  # (R, d)

    def vector(self, digits: Tensor) -> Tensor:
        return digits * (2 / (self.size - 1)) - 1

    def decode(self, codes: Tensor) -> Tensor:
        """codes (..., K) of the first K <= R stages -> (..., d); an ABSENT stage adds zero."""
        vectors = self.vector(code_to_digits(codes.clamp(min=0), self.levels))  # (..., K, d)
        vectors = vectors * self.scales[: codes.shape[-1]] * (codes >= 0)[..., None]
        return vectors.sum(-2)

    def bound(self, x: Tensor) -> Tensor:
        reach = 1 + 1 / (self.size - 1)
        return torch.tanh(x.float() / reach) * reach

    def forward(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (..., d) -> vector (..., d), codes (..., R). `keep`, broadcast against x without d: stages to keep."""
        with torch.autocast(x.device.type, enabled=False):
            bounded = self.bound(x)
            residual, codes = bounded.detach(), []
            for i, scale in enumerate(self.scales):
                place = ((residual / scale).clamp(-1, 1) + 1) / 2 * (self.size - 1)
                digits = whole((place + 0.5).floor(), self.size)
                code = digits_to_code(digits, self.levels)
                codes.append(code if keep is None else torch.where(keep > i, code, ABSENT))
                residual = residual - self.vector(digits) * scale
            codes = torch.stack(codes, dim=-1)
            return straight_through(bounded, self.decode(codes)), codes


class GFSQ(nn.Module):
    """Grouped residual FSQ: each slice of the channels is projected to d numbers, quantised, and projected back."""

    def __init__(self, dim: int = 384, groups: int = 4, residuals: int = 1, levels: Sequence[int] = (8, 8, 8, 6, 5)):
        super().__init__()
        if dim % groups:
            raise WavelldmError(f"{dim} latent channels do not divide into {groups} groups; choose a multiple")
        self.dim, self.groups, self.residuals, self.codebooks = dim, groups, residuals, groups * residuals
        self.fsq = ResidualFSQ(levels, residuals)  # holds no parameters: one serves all groups
        self.entries = math.prod(self.fsq.levels)
        width, d = dim // groups, len(self.fsq.levels)
        self.project_in = nn.ModuleList(nn.Linear(width, d) for _ in range(groups))
        self.project_out = nn.ModuleList(nn.Linear(d, width) for _ in range(groups))

    def forward(self, z: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z (B, D, T) -> z_q (B, D, T) float32, codes (B, Q, T), group-major.

        `keep` (B,) says how many of the Q codebooks each item keeps (see `random_keep`); the others become ABSENT.
        """
        return self.rounded(self.projected(z), keep)

    def rounded(self, u: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """u (B, T, G * d), what `projected` gives -> z_q (B, D, T), codes (B, Q, T) as above."""
        with torch.autocast(u.device.type, enabled=False):
            outs, codes = [], []
            for g, part in enumerate(u.float().chunk(self.groups, dim=-1)):  # (B, T, d)
                left = None if keep is None else keep.to(u.device)[:, None] - g * self.residuals  # (B, 1)
                vector, code = self.fsq(part, left)  # (B, T, d), (B, T, R)
                outs.append(self.project_out[g](vector))
                codes.append(code)
            return torch.cat(outs, dim=-1).transpose(1, 2), torch.cat(codes, dim=-1).transpose(1, 2)

    def projected(self, z: Tensor) -> Tensor:
        """z (B, D, T) -> (B, T, G * d): the numbers that are bounded and then rounded."""
        with torch.autocast(z.device.type, enabled=False):
            parts = z.float().transpose(1, 2).chunk(self.groups, dim=-1)
            return torch.cat([into(part) for into, part in zip(self.project_in, parts)], dim=-1)

    def unrounded(self, z: Tensor) -> Tensor:
        """z (B, D, T) -> (B, D, T): through the same bottleneck, but nothing is rounded. What no bits can limit."""
        with torch.autocast(z.device.type, enabled=False):
            parts = z.float().transpose(1, 2).chunk(self.groups, dim=-1)  # G x (B, T, D/G)
            outs = [
                out(self.fsq.bound(into(part))) for into, out, part in zip(self.project_in, self.project_out, parts)
            ]
            return torch.cat(outs, dim=-1).transpose(1, 2)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """codes (B, K, T), K <= Q -> z_q (B, D, T). Codebooks not given, or ABSENT, contribute a zero vector."""
        if codes.ndim != 3 or codes.is_floating_point() or not 1 <= codes.shape[1] <= self.codebooks:
            raise WavelldmError(
                f"codes are integers (batch, 1 to {self.codebooks} codebooks, frames), "
                f"not {codes.dtype} {tuple(codes.shape)}; pass what `quantise` or a packed file gave"
            )
        if codes.numel() and not ABSENT <= int(codes.min()) <= int(codes.max()) < self.entries:
            raise WavelldmError(
                f"a code lies outside 0 to {self.entries - 1}; the codes are damaged or another codec's: encode again"
            )
        missing = self.codebooks - codes.shape[1]
        codes = torch.nn.functional.pad(codes.long(), (0, 0, 0, missing), value=ABSENT)  # (B, Q, T)
        with torch.autocast(codes.device.type, enabled=False):
            parts = codes.transpose(1, 2).chunk(self.groups, dim=-1)  # G x (B, T, R)
            outs = [out(self.fsq.decode(part)) for out, part in zip(self.project_out, parts)]
            return torch.cat(outs, dim=-1).transpose(1, 2)


def random_keep(batch: int, codebooks: int, share: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    """How many codebooks each item keeps in training: `share` of them any number from 1 to all, the rest all -> (B,).

    Quantiser dropout (SoundStream, arXiv 2107.03312, section III-C): one model then decodes at every bitrate.
    """
    any_number = torch.randint(1, codebooks + 1, (batch,), generator=generator)
    dropped = torch.rand(batch, generator=generator) < share
    return torch.where(dropped, any_number, codebooks)


def random_losses(batch: int, frames: int, most: float, generator: torch.Generator | None = None) -> Tensor:
    """Which frames get lost on their way, (B, T): in every second item none, else a share of them between 0 and `most`.

    A chain of two states, as in Gilbert (1960): a gap ends after each of its frames with chance one half, so gaps are
    two frames long in the mean."""
    share = most * torch.rand(batch, generator=generator) * (torch.rand(batch, generator=generator) < 0.5)  # (B,)
    begins = 0.5 * share / (1 - share).clamp_min(0.01)
    draws = torch.rand(frames, batch, generator=generator)
    lost, rows = draws[0] < share, []
    for draw in draws:
        rows.append(lost)
        lost = torch.where(lost, draw < 0.5, draw < begins)
    return torch.stack(rows, dim=1)
