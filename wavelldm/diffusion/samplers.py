"""From noise to a latent: free functions `(denoise, z_T, schedule, steps, callback, generator) -> z0`.

`denoise(z_t, t) -> z0` estimates the clean latent, t (B,) long. Whatever the network predicts is converted to z0 before
it comes here, so a schedule may end in pure noise. The steps lie evenly and the first is S - 1 ("trailing", arXiv
2305.08891, section 3.3). `callback(i, t, z_t, z0)` sees every step. The last step goes to alpha_bar = 1, without noise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import WavelldmError
from ..light.noise import frame_noise
from .schedule import Schedule


def timesteps(schedule: Schedule, steps: int | None) -> list[int]:
    """`steps` of the schedule's S (None: all), from S - 1 downwards, as evenly as whole numbers allow."""
    total = schedule.steps
    steps = total if steps is None else steps
    if int(steps) != steps or not 1 <= steps <= total:
        raise WavelldmError(f"this schedule can be sampled in 1 to {total} steps, not {steps}")
    return [round(total * (steps - i) / steps) - 1 for i in range(steps)]


@dataclass
class FrameNoise:
    """Standard normal noise for z (B, D, T) that depends on seed, item, frame and number of the draw, and on nothing
    else.

    So a recording that comes in blocks gets the noise that it would get as a whole, and all devices get the same. The
    numbers come from a counter (Philox: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
    `shared`: all items get that of item 0, as the channels of one recording should.
    """

    seed: int = 0
    first: int = 0  # number of z's first frame in the recording
    shared: bool = False
    draws: int = 0  # made so far

    def __call__(self, z: Tensor) -> Tensor:
        items, dim, count = z.shape
        rows = [
            frame_noise(self.seed, self.first, count, dim, item, self.draws)
            for item in range(1 if self.shared else items)
        ]
        self.draws += 1
        noise = torch.from_numpy(np.stack(rows)).transpose(1, 2)  # (B, D, T)
        return noise.to(z.device, z.dtype).expand_as(z)


Noise = Callable[[Tensor], Tensor] | torch.Generator | None
Denoise = Callable[[Tensor, Tensor], Tensor]  # (z_t, t) -> z0
Callback = Callable[[int, int, Tensor, Tensor], object] | None
Step = Callable[[Tensor, Tensor, float, float], Tensor]  # (z_t, z0, now, then) -> z_then


def noise_like(z: Tensor, noise: Noise = None) -> Tensor:
    """Standard normal noise of z's shape: from a function such as `FrameNoise`, or a generator, drawn where that lives
    (one on the CPU gives every device the same), or anew each time."""
    if noise is not None and not isinstance(noise, torch.Generator):
        return noise(z)
    device = z.device if noise is None else noise.device
    return torch.randn(z.shape, generator=noise, device=device, dtype=z.dtype).to(z.device)


def estimate(denoise: Denoise, z_t: Tensor, t: int) -> Tensor:
    """z0 as the network sees it from z_t, every item of the batch at the same t."""
    z0 = denoise(z_t, torch.full((len(z_t),), t, dtype=torch.long, device=z_t.device))
    if z0.shape != z_t.shape:
        raise WavelldmError(f"denoise gave {tuple(z0.shape)} for a z_t of {tuple(z_t.shape)}; both have to be alike")
    return z0


def run(denoise: Denoise, z_T: Tensor, schedule: Schedule, steps: int | None, callback: Callback, step: Step) -> Tensor:
    """The common loop: estimate z0, show it, let `step(z_t, z0, now, then)` go from one alpha_bar to the next."""
    times = timesteps(schedule, steps)
    levels = [float(schedule.alpha_bar[t]) for t in times] + [1.0]
    z_t = z_T
    for i, t in enumerate(times):
        z0 = estimate(denoise, z_t, t)
        if callback:
            callback(i, t, z_t, z0)
        z_t = step(z_t, z0, levels[i], levels[i + 1])
    return z_t


def ancestral(z_t: Tensor, z0: Tensor, now: float, then: float, generator: Noise = None) -> Tensor:
    """A draw from q(z_then | z_now, z0) (DDPM, arXiv 2006.11239, eq. 6, 7); `now`, `then` are values of alpha_bar."""
    if then == 1:
        return z0
    beta = 1 - now / then
    mean = math.sqrt(then) * beta / (1 - now) * z0 + math.sqrt(now / then) * (1 - then) / (1 - now) * z_t
    return mean + math.sqrt((1 - then) / (1 - now) * beta) * noise_like(z_t, generator)


@torch.no_grad()
def ddpm(
    denoise: Denoise,
    z_T: Tensor,
    schedule: Schedule,
    steps: int | None = None,
    callback: Callback = None,
    generator: Noise = None,
) -> Tensor:
    """Ancestral sampling (arXiv 2006.11239, algorithm 2): fresh noise in every step, by default all steps."""
    return run(denoise, z_T, schedule, steps, callback, lambda z, z0, now, then: ancestral(z, z0, now, then, generator))


@torch.no_grad()
def ddim(
    denoise: Denoise,
    z_T: Tensor,
    schedule: Schedule,
    steps: int = 50,
    callback: Callback = None,
    generator: Noise = None,
    eta: float = 0.0,
) -> Tensor:
    """arXiv 2010.02502, eq. 12, with sigma of eq. 16: no fresh noise at eta = 0, as much as DDPM at eta = 1."""
    if not 0 <= eta <= 1:
        raise WavelldmError(f"eta lies between 0 (no fresh noise) and 1 (as much as DDPM), not at {eta}")

    def step(z_t: Tensor, z0: Tensor, now: float, then: float) -> Tensor:
        if then == 1:
            return z0
        eps = (z_t - math.sqrt(now) * z0) / math.sqrt(1 - now)
        sigma = eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
        z = math.sqrt(then) * z0 + math.sqrt(max(1 - then - sigma**2, 0)) * eps
        return z + sigma * noise_like(z, generator) if eta else z

    return run(denoise, z_T, schedule, steps, callback, step)


@torch.no_grad()
def dpmpp_2m(
    denoise: Denoise,
    z_T: Tensor,
    schedule: Schedule,
    steps: int = 20,
    callback: Callback = None,
    generator: Noise = None,
) -> Tensor:
    """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2): as DDIM without noise, but z0 follows the line through its last
    two estimates over lambda = log(a / s). First order in the first and the last step. Deterministic: no noise is
    drawn."""
    before = None  # z0 and h of the step before

    def step(z_t: Tensor, z0: Tensor, now: float, then: float) -> Tensor:
        nonlocal before
        h = half_log_snr(then) - half_log_snr(now)
        target = z0
        if before and math.isfinite(h):
            target = z0 + h / before[1] / 2 * (z0 - before[0])  # an h before of infinity, from alpha_bar = 0, leaves z0
        before = z0, h
        shrink = math.sqrt((1 - then) / (1 - now))
        return shrink * z_t + (math.sqrt(then) - shrink * math.sqrt(now)) * target

    return run(denoise, z_T, schedule, steps, callback, step)


def half_log_snr(alpha_bar: float) -> float:
    """lambda = log(a / s): minus infinity for pure noise, infinity for the clean latent."""
    if alpha_bar in (0, 1):
        return math.inf if alpha_bar == 1 else -math.inf
    return (math.log(alpha_bar) - math.log1p(-alpha_bar)) / 2


@torch.no_grad()
def one_step(
    denoise: Denoise,
    z_T: Tensor,
    schedule: Schedule,
    steps: int = 1,
    callback: Callback = None,
    generator: Noise = None,
) -> Tensor:
    """The z0 estimate from pure noise, at t = S - 1, and nothing more."""
    if steps != 1:
        raise WavelldmError(f"one_step takes 1 step, not {steps}; for more choose ddim or dpmpp_2m")
    return ddim(denoise, z_T, schedule, 1, callback)


@torch.no_grad()
def bridge(
    denoise: Denoise,
    z_T: Tensor,
    schedule: Schedule,
    steps: int = 1,
    callback: Callback = None,
    generator: Noise = None,
) -> Tensor:
    """Along a straight line that ends at z0 and on which z_t lies the share (t + 1) / S of the way back: each step goes
    towards the estimate of z0 as far as the line says (Euler's method, as in rectified flow, arXiv 2209.03003, eq. 2).
    """
    times = timesteps(schedule, steps)
    ways = [(t + 1) / schedule.steps for t in times] + [0.0]
    z_t = z_T
    for i, t in enumerate(times):
        z0 = estimate(denoise, z_t, t)
        if callback:
            callback(i, t, z_t, z0)
        z_t = z0 + ways[i + 1] / ways[i] * (z_t - z0)
    return z_t


@torch.no_grad()
def inpaint(
    denoise: Denoise, known: Tensor, mask: Tensor, schedule: Schedule, steps: int = 100,
    callback: Callback = None, generator: Noise = None, jump: int = 5, resample: int = 10,
) -> Tensor:  # fmt: skip
    """RePaint (arXiv 2201.09865, algorithm 1): fill in where `mask` is False, and keep `known` (B, D, T) where it is
    True.

    Every step replaces the known part by the known latent with as much noise as belongs there. So that both parts come
    to fit, each stretch of `jump` steps is gone through `resample` times, with noise added again in between (appendix
    B): in all steps * resample calls of `denoise`. The fill comes near a draw from the conditional distribution, the
    nearer the more steps and repeats. `mask` is boolean and spreads over `known`, such as (B, 1, T)."""
    if (
        mask.dtype != torch.bool
        or mask.ndim != known.ndim
        or any(m not in (1, k) for m, k in zip(mask.shape, known.shape))
    ):
        raise WavelldmError(
            f"the mask is boolean and fits {tuple(known.shape)}, such as (B, 1, T); "
            f"not {mask.dtype} {tuple(mask.shape)}"
        )
    if jump < 1 or resample < 1:
        raise WavelldmError(f"jump and resample are whole numbers from 1 on, not {jump} and {resample}")
    times = timesteps(schedule, steps)
    levels = [float(schedule.alpha_bar[t]) for t in times] + [1.0]
    z_t, calls = noise_like(known, generator), 0
    for first in range(0, steps, jump):
        last = min(first + jump, steps)
        for again in range(resample):
            if again:  # back up, in one go: q(z_first | z_last)
                kept = levels[first] / levels[last]
                z_t = math.sqrt(kept) * z_t + math.sqrt(1 - kept) * noise_like(known, generator)
            for i in range(first, last):
                z0 = estimate(denoise, z_t, times[i])
                if callback:
                    callback(calls, times[i], z_t, z0)
                calls += 1
                guess, then = ancestral(z_t, z0, levels[i], levels[i + 1], generator), levels[i + 1]
                there = (
                    known if then == 1 else math.sqrt(then) * known + math.sqrt(1 - then) * noise_like(known, generator)
                )
                z_t = torch.where(mask, there, guess)
    return z_t


SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "dpmpp_2m": dpmpp_2m, "one_step": one_step, "bridge": bridge}
