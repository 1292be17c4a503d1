"""How sure a mean is: bootstrap intervals, and a paired test of the difference between two systems.

B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 (percentiles) and 15 (permutation tests).
Both hold for clips that are drawn independently; many clips of one speaker know less than they seem to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2_000  # of the bootstrap
FLIPS = 9_999  # of the permutation test: the smallest p is 1 / 10 000
BATCH = 200  # flips drawn at a time: bounds the memory for a large folder
SURE = 0.05

Values = Sequence[float | None]


def known(values: Values) -> np.ndarray:
    """(K,) without the clips that have no value."""
    return np.array([v for v in values if v is not None], float)


def interval(values: Values, seed: int = 0) -> tuple[float, float, float]:
    """Mean, and where 95 % of the means of samples drawn from the values lie; NaN without any."""
    x = known(values)
    if not len(x):
        return math.nan, math.nan, math.nan
    drawn = x[np.random.default_rng(seed).integers(len(x), size=(DRAWS, len(x)))].mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(x.mean()), float(low), float(high)


def differences(mine: Values, other: Values) -> list[float]:
    """Clip by clip, where both have a value."""
    return [a - b for a, b in zip(mine, other, strict=True) if a is not None and b is not None]


def sign_flip(values: Sequence[float], seed: int = 0) -> float:
    """p, two-sided, of a mean difference as far from 0 if each clip's difference might as well have the other sign.

    With up to 13 clips all signs are tried, else 9 999 drawn ones and the observed (Efron and Tibshirani, eq. 15.18).
    """
    x = np.asarray(values, float)
    n = len(x)
    if n < 2:
        return math.nan
    seen = abs(x.sum()) * (1 - 1e-12)  # equal sums may differ by rounding
    if n <= 13:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)  # (2^n, n)
        return float((np.abs(signs @ x) >= seen).mean())
    rng, reached = np.random.default_rng(seed), 0
    for start in range(0, FLIPS, BATCH):
        signs = rng.integers(0, 2, (min(BATCH, FLIPS - start), n)) * 2 - 1
        reached += int((np.abs(signs @ x) >= seen).sum())
    return (reached + 1) / (FLIPS + 1)


@dataclass(frozen=True)
class Difference:
    """A less B over the clips that both have: mean, 95 % interval, p of the paired test, share of clips where A is
    higher (ties count half)."""

    clips: int
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    higher: float | None

    @property
    def sure(self) -> bool:
        return self.p is not None and self.p < SURE


def compare(mine: Values, other: Values) -> Difference:
    """The paired comparison of two systems on the same clips."""
    x = np.array(differences(mine, other), float)
    if not len(x):
        return Difference(0, None, None, None, None, None)
    mean, low, high = interval(x)
    p = sign_flip(x)
    share = float((x > 0).mean() + (x == 0).mean() / 2)
    return Difference(len(x), mean, low, high, None if math.isnan(p) else p, share)
