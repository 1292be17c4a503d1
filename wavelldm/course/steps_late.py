"""The steps that a reader writes in notebooks 11 to 19, as `steps` has those before; `todo` there knows both."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .step import Step, some


def example(z0: Tensor, eps: Tensor, a: float, s: float, kind: str) -> tuple[Tensor, Tensor]:
    """What a diffusion network sees, z_t, and what it should answer: z0, eps or v (arXiv 2202.00512, section 4)."""
    return a * z0 + s * eps, {"z0": z0, "eps": eps, "v": a * eps - s * z0}[kind]


def other_v(v: Callable) -> Callable:
    """An example whose v is another."""

    def slip(z0, eps, a, s, kind):
        z_t, answer = example(z0, eps, a, s, kind)
        return z_t, v(z0, eps, a, s) if kind == "v" else answer

    return slip


def guidance(network: Callable, z_t: Tensor, t: Tensor, cond: Tensor, weight: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598, eq. 6), weight 1: with the condition, 0: without."""
    told, alone = network(z_t, t, cond), network(z_t, t, None)
    return alone + weight * (told - alone)


def listener(z_t: Tensor, t: float, cond: Tensor | None) -> Tensor:
    """Some network that listens to all that it is told."""
    return torch.tanh(z_t + t) + (0.7 if cond is None else torch.tanh(2 * cond))


def warm_start(denoise: Callable, z0: Tensor, t: Tensor, a: float, s: float, eps: Tensor) -> Tensor:
    """An estimate, with the noise of step t on it, estimated again (SDEdit, arXiv 2108.01073)."""
    return denoise(a * z0 + s * eps, t)


def again(z_t: Tensor, t: int) -> Tensor:
    return torch.tanh(z_t) + 0.1 * t


def noise_level(ratio: Tensor, table: Tensor) -> Tensor:
    """Ratios of speech to noise (B,) and that of each step (S,), falling, in dB -> t (B,), between two steps on the
    straight line."""
    ratio = ratio.clamp(table[-1], table[0])
    after = (table > ratio[:, None]).sum(1).clamp(1, len(table) - 1)  # the first step with less
    high, low = table[after - 1], table[after]
    return after - (ratio - low) / (high - low)


def whole_step(ratio: Tensor, table: Tensor) -> Tensor:
    return (table > ratio[:, None]).sum(1).clamp(1, len(table) - 1)


def wrong_side(ratio: Tensor, table: Tensor) -> Tensor:
    after, ratio = whole_step(ratio, table), ratio.clamp(table[-1], table[0])
    return after - 1 + (ratio - table[after]) / (table[after - 1] - table[after])


def beyond(ratio: Tensor, table: Tensor) -> Tensor:
    after = whole_step(ratio, table)
    return after - (ratio - table[after]) / (table[after - 1] - table[after])


def leaning(x0: Tensor, noisy: Tensor, sigma: Tensor, then: float, eta_b: float, z: Tensor) -> Tensor:
    """Diffiner's step while the step's noise is larger than the observation's (arXiv 2210.17287, eq. 9)."""
    a, s = math.sqrt(then), math.sqrt(1 - then)
    missing = (s**2 - (eta_b * a * sigma) ** 2).clamp_min(0).sqrt()
    return a * ((1 - eta_b) * x0 + eta_b * noisy) + missing * z


def leaning_with(missing: Callable) -> Callable:
    """The same with another share of fresh noise: of a, s, sigma and eta_b."""

    def slip(x0, noisy, sigma, then, eta_b, z):
        a, s = math.sqrt(then), math.sqrt(1 - then)
        return a * ((1 - eta_b) * x0 + eta_b * noisy) + missing(a, s, sigma, eta_b) * z

    return slip


def last_token(states: Tensor, real: Tensor) -> Tensor:
    """Vectors (B, L, C) and which tokens are real (B, L), padding last -> that of the last real one (B, C)."""
    return states[torch.arange(len(states)), real.sum(1) - 1]


def captions(g: torch.Generator, count: int, length: int) -> tuple[Tensor, Tensor]:
    ends = torch.randint(1, length, (count,), generator=g)  # at least two tokens, some padding
    ends[0] = length - 1
    return some(g, count, length, 4), torch.arange(length) <= ends[:, None]


def contrastive(sound: Tensor, text: Tensor, scale: float) -> Tensor:
    """Two cross-entropies: each sound finds its caption, each caption its sound (CLAP, arXiv 2206.04769, eq. 3, 4)."""
    fit = scale * sound @ text.T
    return -(fit.log_softmax(1).diagonal().mean() + fit.log_softmax(0).diagonal().mean()) / 2


def unit(g: torch.Generator, *shape: int) -> Tensor:
    return torch.nn.functional.normalize(some(g, *shape), dim=1)


def bootstrap(values: np.ndarray, picks: np.ndarray) -> tuple[float, float, float]:
    """Values (N,), and which of them each drawn set has (draws, N) -> their mean, and where the middle 95 % of the
    sets' means lie (Efron and Tibshirani 1993, chapter 13)."""
    return values.mean(), *np.percentile(values[picks].mean(1), [2.5, 97.5])


def sets(g: torch.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    skewed = some(g, count).exp().double().numpy()
    return skewed, torch.randint(count, (200, count), generator=g).numpy()


def around_mean(values: np.ndarray, picks: np.ndarray) -> tuple[float, float, float]:
    half = 1.96 * values[picks].mean(1).std()
    return values.mean(), values.mean() - half, values.mean() + half


def rounded(x: Tensor, bits: int, most: int | None = None) -> Tensor:
    """x (N, C) -> the nearest of 2^bits - 1 multiples of a step, from -max to max, one step for each row."""
    step = x.abs().amax(1, keepdim=True).clamp_min(1e-12) / (most or 2 ** (bits - 1) - 1)
    return (x / step).round() * step


LATE = {
    "example to learn from": Step(
        example,
        lambda g: [(some(g, 2, 3), some(g, 2, 3), 0.8, 0.6, kind) for kind in ("z0", "eps", "v")],
        {
            "a goes with the signal z0 and s with the noise; in z_t they have changed places": (
                lambda z0, eps, a, s, kind: (s * z0 + a * eps, example(z0, eps, a, s, kind)[1])
            ),
            "z_t is right, but the answer is z0 each time; `kind` says what is wanted": lambda z0, eps, a, s, kind: (
                example(z0, eps, a, s, "z0")
            ),
            "v has the other sign": other_v(lambda z0, eps, a, s: s * z0 - a * eps),
            "in v, a goes with eps and s with z0": other_v(lambda z0, eps, a, s: s * eps - a * z0),
            "this v is z_t once more; a minus stands in it": other_v(lambda z0, eps, a, s: a * z0 + s * eps),
            "this v has a plus where a minus belongs": other_v(lambda z0, eps, a, s: a * eps + s * z0),
        },
    ),
    "guidance": Step(
        guidance,
        lambda g: [(listener, some(g, 2, 3), 0.4, some(g, 2, 3), 3.0), (listener, some(g, 4), 0.1, some(g, 4), 0.5)],
        {
            "this goes once too far: at a weight of 1 the result is what the network says with the condition": (
                lambda network, z_t, t, cond, weight: guidance(network, z_t, t, cond, weight + 1)
            ),
            "the other way round: at a weight of 0 the condition does not count": (
                lambda network, z_t, t, cond, weight: guidance(network, z_t, t, cond, 1 - weight)
            ),
            "without a condition means None; zeros are a condition like any other": (
                lambda network, z_t, t, cond, weight: (
                    (alone := network(z_t, t, torch.zeros_like(cond))) + weight * (network(z_t, t, cond) - alone)
                )
            ),
            "this is only what the network says with the condition": lambda network, z_t, t, cond, weight: network(
                z_t, t, cond
            ),
            "this is only the difference; it begins at what the network says without the condition": (
                lambda network, z_t, t, cond, weight: weight * (network(z_t, t, cond) - network(z_t, t, None))
            ),
        },
    ),
    "warm start": Step(
        warm_start,
        lambda g: [(again, some(g, 2, 3), 3, 0.8, 0.6, some(g, 2, 3)), (again, some(g, 4), 1, 0.6, 0.8, some(g, 4))],
        {
            "the estimate needs noise before the network sees it": lambda denoise, z0, t, a, s, eps: denoise(z0, t),
            "the noise is right, but z0 has to be a times as large": lambda denoise, z0, t, a, s, eps: denoise(
                z0 + s * eps, t
            ),
            "a and s have changed places": lambda denoise, z0, t, a, s, eps: denoise(s * z0 + a * eps, t),
            "this is only the noised estimate; let the network look at it": lambda denoise, z0, t, a, s, eps: (
                a * z0 + s * eps
            ),
        },
    ),
    "noise level": Step(
        noise_level,
        lambda g: [
            (torch.tensor([13.0, 2.5, -4.0]), torch.tensor([20.0, 10.0, 4.0, 0.0, -6.0])),
            (torch.tensor([30.0, 7.0, -40.0]), torch.tensor([25.0, 5.0, -3.0, -9.0])),
        ],
        {
            "this is a whole step; go between two on the straight line": whole_step,
            "the way between two steps is measured from the wrong end": wrong_side,
            "a ratio beyond the table gets its first or last step; clamp it": beyond,
            "this counts the steps from the noisy end": lambda ratio, table: len(table) - 1 - noise_level(ratio, table),
        },
    ),
    "step of the refiner": Step(
        leaning,
        lambda g: [
            (some(g, 2, 2, 5), some(g, 2, 2, 5), torch.rand(2, 1, 5, generator=g), 0.4, 0.7, some(g, 2, 2, 5)),
            (some(g, 1, 2, 9), some(g, 1, 2, 9), 2 * torch.rand(1, 1, 9, generator=g), 0.6, 0.9, some(g, 1, 2, 9)),
        ],
        {
            "the observation brings noise of its own, so less than s of fresh noise is missing": leaning_with(
                lambda a, s, sigma, eta_b: s
            ),
            "the observation's noise is scaled like the observation: eta_b a sigma": leaning_with(
                lambda a, s, sigma, eta_b: (s**2 - (eta_b * sigma) ** 2).clamp_min(0).sqrt()
            ),
            "of the observation only the share eta_b is used, and so of its noise": leaning_with(
                lambda a, s, sigma, eta_b: (s**2 - (a * sigma) ** 2).clamp_min(0).sqrt()
            ),
            "variances subtract, deviations do not: squares under the root": leaning_with(
                lambda a, s, sigma, eta_b: (s - eta_b * a * sigma).clamp_min(0)
            ),
            "`then` is alpha-bar; a is its root, and s that of 1 - alpha-bar": (
                lambda x0, noisy, sigma, then, eta_b, z: leaning(x0, noisy, sigma, then**2, eta_b, z)
            ),
            "x0 and the observation have changed places": lambda x0, noisy, sigma, then, eta_b, z: leaning(
                noisy, x0, sigma, then, eta_b, z
            ),
            "what is not noise is scaled by a": lambda x0, noisy, sigma, then, eta_b, z: (
                leaning(x0, noisy, sigma, then, eta_b, z) + (1 - math.sqrt(then)) * ((1 - eta_b) * x0 + eta_b * noisy)
            ),
        },
    ),
    "vector of a caption": Step(
        last_token,
        lambda g: [captions(g, 4, 6), captions(g, 3, 9)],
        {
            "this is the last column, and for shorter captions that is padding": lambda states, real: states[:, -1],
            "this is the first token, which has seen nothing but itself": lambda states, real: states[:, 0],
            "this is one token too early": lambda states, real: states[torch.arange(len(states)), real.sum(1) - 2],
            "this is the mean of the real tokens; the last of them has seen all others": lambda states, real: (
                (states * real[..., None]).sum(1) / real.sum(1, keepdim=True)
            ),
            "this is a mean with padding in it": lambda states, real: states.mean(1),
        },
    ),
    "contrastive loss": Step(
        contrastive,
        lambda g: [(unit(g, 5, 8), unit(g, 5, 8), 14.0), (unit(g, 7, 3), unit(g, 7, 3), 2.0)],
        {
            "each sound chooses a caption; now the other way round, too": lambda sound, text, scale: (
                -(scale * sound @ text.T).log_softmax(1).diagonal().mean()
            ),
            "each caption chooses a sound; now the other way round, too": lambda sound, text, scale: (
                -(scale * sound @ text.T).log_softmax(0).diagonal().mean()
            ),
            "the logarithm of a probability is negative, and a loss falls to 0: the sign": lambda sound, text, scale: (
                -contrastive(sound, text, scale)
            ),
            "the products have to be multiplied by the scale": lambda sound, text, scale: contrastive(sound, text, 1.0),
            "this divides by the scale": lambda sound, text, scale: contrastive(sound, text, 1 / scale),
            "this is the product of the right pairs; the others have to be smaller, which softmax asks for": (
                lambda sound, text, scale: -scale * (sound * text).sum(1).mean()
            ),
        },
    ),
    "bootstrap": Step(
        bootstrap,
        lambda g: [sets(g, 12), sets(g, 40)],
        {
            "these are percentiles of the values; take those of the sets' means": lambda values, picks: (
                values.mean(),
                *np.percentile(values[picks], [2.5, 97.5]),
            ),
            "a set is a row of picks: its mean runs over the columns": lambda values, picks: (
                values.mean(),
                *np.percentile(values[picks].mean(0), [2.5, 97.5]),
            ),
            "this leaves out 5 % on each side, and so 10 %": lambda values, picks: (
                values.mean(),
                *np.percentile(values[picks].mean(1), [5, 95]),
            ),
            "this supposes a normal distribution; read the percentiles off the sets' means": around_mean,
            "in the middle stands the mean of the values themselves": lambda values, picks: (
                values[picks].mean(),
                *bootstrap(values, picks)[1:],
            ),
        },
    ),
    "rounding": Step(
        rounded,
        lambda g: [(some(g, 4, 9), 8), (some(g, 5, 7), 3)],
        {
            "this is one step for the whole matrix; each row has its own": lambda x, bits: rounded(
                x.reshape(1, -1), bits
            ).reshape(x.shape),
            "this is one step for each column; each row has its own": lambda x, bits: rounded(x.T, bits).T,
            "this cuts the rest off; round to the nearest": lambda x, bits: (
                (x / (step := x.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1))).trunc() * step
            ),
            "whole numbers are right; multiply them by the step again": lambda x, bits: (
                x / (x.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1))
            ).round(),
            "one number too many: with 8 bits the largest is 127, not 128": lambda x, bits: rounded(
                x, bits, 2 ** (bits - 1)
            ),
            "the sign takes one of the bits": lambda x, bits: rounded(x, bits, 2**bits - 1),
        },
    ),
}
