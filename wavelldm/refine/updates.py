"""Diffiner (arXiv 2210.17287): a prior of clean speech refines what any denoiser left, bin by bin, by DDRM's updates (arXiv 2201.11793).

Arrays are complex spectra as two channels (B, 2, bins, T). The observation is the noisy spectrum, and `sigma` (B, 1, bins, T) says
how much noise lies in each bin: where there is little the observation is kept, where there is much the prior speaks. It is the
deviation of real and imaginary part, each, as all noise of the diffusion is.
"""

import math

import torch
from torch import Tensor

from ..diffusion.samplers import ancestral, noise_like, run
from ..diffusion.schedule import Schedule
from ..errors import WavelldmError


def noise_map(noisy: Tensor, cleaned: Tensor) -> Tensor:
    """(B, 2, bins, T) each -> (B, 1, bins, T): what the first denoiser took away is what it held for noise (section 3.2).

    The paper and its release take the magnitude |Y - X|. Noise of that magnitude and any phase has the variance |Y - X|^2 / 2 in each of its
    two parts, and the updates hold for parts: hence the mean and not the sum. With the sum every step would come out with too little noise.
    """
    return (noisy - cleaned).square().mean(1, keepdim=True).sqrt()


def towards(x0: Tensor, noisy: Tensor, sigma: Tensor, then: float, eta_b: float, generator=None) -> Tensor:
    """Where the step's own noise is larger than the observation's: lean on the observation (eq. 9, first case)."""
    a, s = math.sqrt(then), math.sqrt(1 - then)
    left = (s * s - (eta_b * a * sigma).square()).clamp_min(0).sqrt()
    return a * ((1 - eta_b) * x0 + eta_b * noisy) + left * noise_like(x0, generator)


def within(x0: Tensor, noisy: Tensor, sigma: Tensor, then: float, eta_a: float, generator=None) -> Tensor:
    """Where it is smaller: the observation is only a source of noise with the right structure (eq. 9, second case)."""
    a, s = math.sqrt(then), math.sqrt(1 - then)
    found = (noisy - x0) / sigma.clamp_min(1e-5)  # deviation 1 if sigma is right
    return a * x0 + s * (math.sqrt(1 - eta_a**2) * found + eta_a * noise_like(x0, generator))


def within_plus(
    x0: Tensor, eps: Tensor, noisy: Tensor, sigma: Tensor, then: float, eta_a: float, eta_c: float, generator=None
) -> Tensor:
    """Diffiner+: also keeps a share of the noise that the step came with, as DDIM does (eq. 11). Both may point the same way,
    so the fresh noise fills up what their sum leaves of variance 1."""
    a, s = math.sqrt(then), math.sqrt(1 - then)
    found = (noisy - x0) / sigma.clamp_min(1e-5)
    dims = tuple(range(1, x0.ndim))
    alike = (eps * found).sum(dims, keepdim=True) / (
        eps.square().sum(dims, keepdim=True) * found.square().sum(dims, keepdim=True)
    ).clamp_min(1e-12).sqrt()
    left = (1 - eta_a**2 - eta_c**2 - 2 * eta_a * eta_c * alike).clamp_min(0).sqrt()
    return a * x0 + s * (eta_a * eps + eta_c * found + left * noise_like(x0, generator))


@torch.no_grad()
def refine(
    denoise, noisy: Tensor, sigma: Tensor, schedule: Schedule, steps: int = 50,
    eta_a: float | None = 0.9, eta_b: float = 0.9, eta_c: float | None = None, callback=None, generator=None,
) -> Tensor:  # fmt: skip
    """noisy (B, 2, bins, T), sigma (B, 1, bins, T) -> refined (B, 2, bins, T). `denoise(x_t, t) -> x0` is the prior.

    Without eta_c this is Diffiner (the paper takes 0.9 and 0.9), with it Diffiner+ (0.4, 0.6 and 0). `steps` of the schedule, as in DDIM.
    A fixed eta_a adds the same share of fresh noise however short the steps are, so the spread of what comes out depends on their number.
    With eta_a None, DDPM's own step takes over as soon as the step's noise has fallen to the observation's; with eta_b = 1 the state is then the
    observation itself, rightly scaled, and what comes out is a draw from the posterior, if the prior is perfect and the noise normal.
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
            f"the noise map holds one number of 0 or more per bin, {(len(noisy), 1, *noisy.shape[2:])}, not {tuple(sigma.shape)}"
        )

    def step(x_t, x0, now, then):
        a, s = math.sqrt(then), math.sqrt(1 - then)
        leaning = towards(x0, noisy, sigma, then, eta_b, generator)
        if eta_a is None:
            inner = ancestral(x_t, x0, now, then, generator)
        elif eta_c is None:
            inner = within(x0, noisy, sigma, then, eta_a, generator)
        else:
            eps = (x_t - math.sqrt(now) * x0) / math.sqrt(1 - now)
            inner = within_plus(x0, eps, noisy, sigma, then, eta_a, eta_c, generator)
        return torch.where(s >= a * sigma, leaning, inner)

    a = float(schedule.alpha_bar[-1]) ** 0.5
    sure = (1 - a * a) - (a * sigma).square()  # the observation as the first of all steps would leave it
    start = torch.where(sure >= 0, a * noisy, 0.0) + torch.where(sure >= 0, sure, 1 - a * a).clamp_min(
        0
    ).sqrt() * noise_like(noisy, generator)
    return run(denoise, start, schedule, steps, callback, step)
