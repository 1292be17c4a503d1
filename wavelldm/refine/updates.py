"""Diffiner (arXiv 2210.17287): a prior of clean speech refines what any denoiser left, bin by bin, by DDRM's updates
(arXiv 2201.11793).

Arrays are complex spectra as two channels (B, 2, bins, T). The observation is the noisy spectrum, and `sigma`
(B, 1, bins, T) is the deviation of its noise in each bin, of real and imaginary part each, as for all noise of the
diffusion. Where there is little noise the observation is kept, where there is much the prior fills it in.
"""

import math

import torch
from torch import Tensor

from ..diffusion.samplers import Callback, Denoise, Noise, ancestral, noise_like, run
from ..diffusion.schedule import Schedule
from ..errors import WavelldmError


def noise_map(noisy: Tensor, cleaned: Tensor) -> Tensor:
    """(B, 2, bins, T) each -> (B, 1, bins, T): what the first denoiser took away counts as noise (section 3.2).

    The paper and its release take the magnitude |Y - X|. Noise of that magnitude and any phase has the variance
    |Y - X|^2 / 2 in each of its two parts, and the updates hold for parts: hence the mean and not the sum. With the sum
    every step would come out with too little noise.
    """
    return (noisy - cleaned).square().mean(1, keepdim=True).sqrt()


def with_observation(
    x0: Tensor, noisy: Tensor, sigma: Tensor, then: float, eta_b: float, generator: Noise = None
) -> Tensor:
    """Where the step's noise is larger than the observation's: move towards the observation (eq. 9, first case)."""
    a, s = math.sqrt(then), math.sqrt(1 - then)
    left = (s * s - (eta_b * a * sigma).square()).clamp_min(0).sqrt()
    return a * ((1 - eta_b) * x0 + eta_b * noisy) + left * noise_like(x0, generator)


def with_residual(
    x0: Tensor, noisy: Tensor, sigma: Tensor, then: float, eta_a: float, generator: Noise = None
) -> Tensor:
    """Where it is smaller: of the observation only the residual counts, as structured noise (eq. 9, second case)."""
    a, s = math.sqrt(then), math.sqrt(1 - then)
    residual = (noisy - x0) / sigma.clamp_min(1e-5)  # deviation 1 if sigma is right
    return a * x0 + s * (math.sqrt(1 - eta_a**2) * residual + eta_a * noise_like(x0, generator))


def with_residual_plus(
    x0: Tensor, eps: Tensor, noisy: Tensor, sigma: Tensor, then: float, eta_a: float, eta_c: float,
    generator: Noise = None,
) -> Tensor:  # fmt: skip
    """Diffiner+: also keeps a share of the noise that the step came with, as DDIM does (eq. 11). Both may be
    correlated, so fresh noise adds what their sum lacks to variance 1."""
    a, s = math.sqrt(then), math.sqrt(1 - then)
    residual = (noisy - x0) / sigma.clamp_min(1e-5)
    dims = tuple(range(1, x0.ndim))
    powers = eps.square().sum(dims, keepdim=True) * residual.square().sum(dims, keepdim=True)
    correlation = (eps * residual).sum(dims, keepdim=True) / powers.clamp_min(1e-12).sqrt()
    left = (1 - eta_a**2 - eta_c**2 - 2 * eta_a * eta_c * correlation).clamp_min(0).sqrt()
    return a * x0 + s * (eta_a * eps + eta_c * residual + left * noise_like(x0, generator))


@torch.no_grad()
def refine(
    denoise: Denoise, noisy: Tensor, sigma: Tensor, schedule: Schedule, steps: int = 50, eta_a: float | None = 0.9,
    eta_b: float = 0.9, eta_c: float | None = None, callback: Callback = None, generator: Noise = None,
) -> Tensor:  # fmt: skip
    """noisy (B, 2, bins, T), sigma (B, 1, bins, T) -> refined (B, 2, bins, T). `denoise(x_t, t) -> x0` is the prior.

    Without eta_c this is Diffiner (the paper takes 0.9 and 0.9), with it Diffiner+ (0.4, 0.6 and 0). `steps` of the
    schedule, as in DDIM. A fixed eta_a adds the same share of fresh noise however short the steps are, so the deviation
    of what comes out depends on their number. With eta_a None, DDPM's own step takes over as soon as the step's noise
    has fallen to the observation's. With eta_b = 1 the state is then the observation itself, rightly scaled, and what
    comes out is a draw from the posterior, if the prior is perfect and the noise normal.
    """
    if not all(eta is None or 0 <= eta <= 1 for eta in (eta_a, eta_b, eta_c)):
        raise WavelldmError("eta_a, eta_b and eta_c lie between 0 and 1")
    if eta_c is not None and eta_a is None:
        raise WavelldmError("DDPM's own step (eta_a None) has no eta_c; leave it out")
    if eta_c is not None and eta_a**2 + eta_c**2 > 1:
        raise WavelldmError(
            "the squares of eta_a and eta_c add up to more than 1, which leaves less than no noise; lower one of them"
        )
    if sigma.shape != (len(noisy), 1, *noisy.shape[2:]) or not bool((sigma >= 0).all()):
        raise WavelldmError(
            "the noise map holds one number of 0 or more per bin, "
            f"{(len(noisy), 1, *noisy.shape[2:])}, not {tuple(sigma.shape)}"
        )

    def step(x_t: Tensor, x0: Tensor, now: float, then: float) -> Tensor:
        a, s = math.sqrt(then), math.sqrt(1 - then)
        early = with_observation(x0, noisy, sigma, then, eta_b, generator)
        if eta_a is None:
            late = ancestral(x_t, x0, now, then, generator)
        elif eta_c is None:
            late = with_residual(x0, noisy, sigma, then, eta_a, generator)
        else:
            eps = (x_t - math.sqrt(now) * x0) / math.sqrt(1 - now)
            late = with_residual_plus(x0, eps, noisy, sigma, then, eta_a, eta_c, generator)
        return torch.where(s >= a * sigma, early, late)

    a = float(schedule.alpha_bar[-1]) ** 0.5
    missing = (1 - a * a) - (a * sigma).square()  # variance that the scaled observation lacks at the first step
    begin = missing >= 0  # else it has more noise than the step, and cannot begin there
    deviation = torch.where(begin, missing, 1 - a * a).clamp_min(0).sqrt()
    start = torch.where(begin, a * noisy, 0.0) + deviation * noise_like(noisy, generator)
    return run(denoise, start, schedule, steps, callback, step)
