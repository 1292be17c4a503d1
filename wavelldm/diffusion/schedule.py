"""Noise schedules: how much of the signal is left after t steps, and the three ways to say what the noise was.

z_t = a z0 + s eps with a = sqrt(alpha_bar_t), s = sqrt(1 - alpha_bar_t) (DDPM, arXiv 2006.11239, eq. 4). Given z_t,
each of eps, z0 and v = a eps - s z0 (arXiv 2202.00512, appendix D) gives the other two, except that eps says nothing
where a is 0."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import WavelldmError

KINDS = ("eps", "z0", "v")


@dataclass(frozen=True, eq=False)
class Schedule:
    """alpha_bar (S,), kept in float64 on the CPU: the share of the signal's power at t = 0 (nearly clean) to S - 1
    (noise)."""

    alpha_bar: Tensor

    def __post_init__(self):
        table = torch.as_tensor(self.alpha_bar).detach().to("cpu", torch.float64).clone()
        if not (table.ndim == 1 and len(table) and 1 > table[0] and table[-1] >= 0 and (table.diff() < 0).all()):
            raise WavelldmError("alpha_bar is a row of numbers below 1 that fall, to 0 at most; use schedule.make")
        object.__setattr__(self, "alpha_bar", table)

    @property
    def steps(self) -> int:
        return len(self.alpha_bar)

    def at(self, t: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """t (B,) long -> a = sqrt(alpha_bar_t), s = sqrt(1 - alpha_bar_t), each (B, 1, 1)."""
        a = pick(self.alpha_bar.sqrt(), t, dtype)
        s = pick((1 - self.alpha_bar).sqrt(), t, dtype)
        return a[:, None, None], s[:, None, None]  # (B, 1, 1)


def pick(table: Tensor, t: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The entries t (B,) of a float64 table (S,) -> (B,), where t is."""
    if t.ndim != 1 or t.dtype != torch.long:
        raise WavelldmError(f"t is one whole number per item, a long tensor (B,), not {t.dtype} {tuple(t.shape)}")
    try:
        return table.to(dtype).to(t.device).index_select(0, t)
    except IndexError:
        raise WavelldmError(
            f"t runs from 0 to {len(table) - 1} here, not from {int(t.min())} to {int(t.max())}"
        ) from None


def make(kind: str = "cosine", steps: int = 1000, zero_terminal: bool = False) -> Schedule:
    """`linear` (DDPM, section 4), `scaled_linear` (linear in the square roots, with AudioLDM's ends, arXiv 2301.12503),
    `cosine` (arXiv 2102.09672, eq. 17). Other than 1000 linear steps are scaled, so that the noise at the end stays the
    same."""
    if int(steps) != steps or steps < 1 + zero_terminal:
        raise WavelldmError(f"a schedule has a whole number of steps, at least {1 + zero_terminal}, not {steps}")
    if kind == "linear":
        beta = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64) * 1000 / steps
    elif kind == "scaled_linear":
        beta = torch.linspace(0.0015**0.5, 0.0195**0.5, steps, dtype=torch.float64) ** 2 * 1000 / steps
    elif kind == "cosine":
        f = (
            torch.cos((torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
        )  # (S + 1,)
        beta = 1 - f[1:] / f[:-1]
    else:
        raise WavelldmError(f"there is no schedule '{kind}'; choose linear, scaled_linear or cosine")
    alpha_bar = (1 - beta.clamp(max=0.999)).cumprod(0)
    return Schedule(to_zero(alpha_bar) if zero_terminal else alpha_bar)


def to_zero(alpha_bar: Tensor) -> Tensor:
    """Shift and stretch sqrt(alpha_bar) to end at 0 and begin where it did (arXiv 2305.08891, algorithm 1)."""
    a = alpha_bar.sqrt()
    return ((a - a[-1]) * a[0] / (a[0] - a[-1])) ** 2


def wide(*tensors: Tensor) -> torch.dtype:
    """float32, or float64 where a tensor is: half precision is too coarse for s near 1 or 0."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def q_sample(schedule: Schedule, z0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """z0, eps (B, D, T), t (B,) -> z_t (B, D, T): all t steps of noise at once (DDPM, eq. 4)."""
    a, s = schedule.at(t, wide(z0, eps))
    return a * z0 + s * eps


def convert(schedule: Schedule, prediction: Tensor, z_t: Tensor, t: Tensor, source: str, target: str) -> Tensor:
    """What a network predicted as `source`, said as `target` ("eps", "z0" or "v"); prediction, z_t (B, D, T), t (B,).

    Exact, but not equally harmless: eps -> z0 divides by a, and so blows the error of eps up where little signal is
    left."""
    for kind in (source, target):
        if kind not in KINDS:
            raise WavelldmError(f"a prediction is one of {', '.join(KINDS)}, not '{kind}'")
    if source == target:
        return prediction
    a, s = schedule.at(t, wide(prediction, z_t))
    if source == "v":
        return a * z_t - s * prediction if target == "z0" else s * z_t + a * prediction
    if source == "z0":
        return (z_t - a * prediction) / s if target == "eps" else (a * z_t - prediction) / s
    if schedule.alpha_bar[-1] == 0 and bool(
        (a == 0).any()
    ):  # the second look waits for a GPU, so only where there is such a step
        raise WavelldmError(
            "eps says nothing about z0 where alpha_bar is 0: "
            "predict v or z0, or make the schedule without zero_terminal"
        )
    return (z_t - s * prediction) / a if target == "z0" else (prediction - s * z_t) / a


def snr(schedule: Schedule) -> Tensor:
    """alpha_bar / (1 - alpha_bar) (S,), float64."""
    return schedule.alpha_bar / (1 - schedule.alpha_bar)


def min_snr(schedule: Schedule, t: Tensor, kind: str, gamma: float = 5.0) -> Tensor:
    """Weight (B,) of the squared error of a prediction of this kind: min(SNR, gamma) on z0 (arXiv 2303.09556, section
    3.4).

    The same error said as eps is SNR times smaller in z0, and as v SNR + 1 times, so the weight is divided by that.
    Where SNR is 0 an error of z0 or v then weighs nothing: with `zero_terminal` the last step is not trained by this
    weight."""
    if kind not in KINDS:
        raise WavelldmError(f"a prediction is one of {', '.join(KINDS)}, not '{kind}'")
    ratio = snr(schedule)
    if kind == "eps":
        weight = (gamma / ratio).clamp(max=1)  # SNR 0: gamma / 0 is infinite, the weight 1
    else:
        weight = ratio.clamp(max=gamma) / (1 if kind == "z0" else ratio + 1)
    return pick(weight, t)
