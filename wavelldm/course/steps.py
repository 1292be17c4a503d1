"""The steps that a reader writes: for each the finished function, sounds and numbers to try it on, and common slips.

`todo("deep filter", mine)` gives back the reader's function if it is right, and else the finished one, so that a
notebook runs past a step that is still open. Where a result is wrong in a known way, a hint says what happened.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import WavelldmError

CLOSE = 1e-4  # of the largest value


@dataclass(frozen=True)
class Step:
    """One step: what it should do, arguments to try it on, and for each hint a function that errs in that way."""

    right: Callable
    arguments: Callable[[torch.Generator], list[tuple]]
    slips: dict[str, Callable]


def some(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g)


def spectra(g: torch.Generator, *shape: int) -> Tensor:
    return torch.complex(some(g, *shape), some(g, *shape))


def deep_filter(seen: Tensor, weights: Tensor) -> Tensor:
    """seen (K - 1 + T, bins), weights (K, T, bins) -> (T, bins): sum over k of weights[k, t] seen[t + k]."""
    count = weights.shape[1]
    return sum(w * seen[k : k + count] for k, w in enumerate(weights))


def flow_step(x: Tensor, end: Tensor, t: float, then: float) -> Tensor:
    """From place t of the straight line to `then`, if the line ends at `end`."""
    return x + (then - t) / (1 - t) * (end - x)


STEPS = {
    "deep filter": Step(
        deep_filter,
        lambda g: [(spectra(g, 12, 5), spectra(g, 6, 7, 5)), (spectra(g, 4, 3), spectra(g, 1, 4, 3))],
        {
            "weights[0] belongs to the earliest frame, seen[t], and the last one to seen[t + K - 1]": lambda s, w: (
                deep_filter(s, w.flip(0))
            ),
            "every frame t has weights of its own: weights[k, t], not the same ones for all t": lambda s, w: (
                deep_filter(s, w[:, :1].expand_as(w))
            ),
            "the weights are not conjugated: both numbers are multiplied as they are": lambda s, w: deep_filter(
                s, w.conj()
            ),
            "this multiplies one frame only; add up all K of them": lambda s, w: w[0] * s[: w.shape[1]],
        },
    ),
    "step of a flow": Step(
        flow_step,
        lambda g: [(some(g, 2, 3), some(g, 2, 3), 0.2, 0.5), (some(g, 2, 3), some(g, 2, 3), 0.6, 1.0)],
        {
            "from t on, a length of 1 - t is left; a step of then - t is the share (then - t) / (1 - t) of it": (
                lambda x, end, t, then: x + (then - t) * (end - x)
            ),
            "the last step has to arrive: at then = 1 the result is `end`": lambda x, end, t, then: x + t * (end - x),
            "this jumps to the end at once; go a part of the way": lambda x, end, t, then: end,
        },
    ),
}


def plain(x: Any) -> Tensor:
    """Numbers, lists and tuples of them, arrays and tensors -> a tensor."""
    if isinstance(x, Tensor):
        return x.detach().cpu()
    if isinstance(x, np.ndarray):
        return torch.from_numpy(x)
    if isinstance(x, (list, tuple)):
        return torch.stack([plain(part) for part in x]) if len(x) else torch.empty(0)
    return torch.as_tensor(x)


def agree(mine: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
    for a, b in zip(mine, theirs):
        if a.shape != b.shape:
            return False
        kind = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
        apart = (a.to(kind) - b.to(kind)).abs().max() if b.numel() else torch.tensor(0.0)
        if not apart <= CLOSE * max(1.0, b.abs().max().item()):  # also where it is not a number
            return False
    return True


def todo(name: str, mine: Callable) -> Callable:
    """Try a reader's function and say what is wrong with it -> the function to go on with."""
    if name not in STEPS:
        raise WavelldmError(f"there is no step called '{name}'; choose of {', '.join(STEPS)}")
    step, g = STEPS[name], torch.Generator().manual_seed(0)
    cases = step.arguments(g)
    theirs = [plain(step.right(*case)) for case in cases]
    try:
        answers = [mine(*case) for case in cases]
    except Exception as error:  # whatever a reader's code may raise
        print(f"✗ {name}: it stops with {type(error).__name__}: {error}")
        return step.right
    if all(answer is None for answer in answers):
        print(f"… {name}: your turn; until then the notebook goes on with the finished one")
        return step.right
    try:
        answers = [plain(answer) for answer in answers]
    except (TypeError, ValueError, RuntimeError):
        print(f"✗ {name}: it returns {type(answers[0]).__name__}; return numbers, a list of them, or a tensor")
        return step.right
    if agree(answers, theirs):
        print(f"✓ {name}: right; the notebook goes on with yours")
        return mine
    print(f"✗ {name}: {_hint(step, cases, answers, theirs)}")
    return step.right


def _hint(step: Step, cases: list[tuple], answers: list[Tensor], theirs: list[Tensor]) -> str:
    for hint, slip in step.slips.items():
        if agree(answers, [plain(slip(*case)) for case in cases]):
            return hint
    for a, b in zip(answers, theirs):
        if a.shape != b.shape:
            return f"the result has the shape {tuple(a.shape)}, and should have {tuple(b.shape)}"
        if not torch.isfinite(torch.view_as_real(a) if a.is_complex() else a).all():
            return "there are NaN or infinite values in the result"
    size = [
        (a.abs().double().norm() / b.abs().double().norm().clamp_min(1e-12)).item() for a, b in zip(answers, theirs)
    ]
    if max(size) - min(size) < 1e-3 and abs(size[0] - 1) > 1e-3:
        return f"the result is {size[0]:.3g} times as large as it should be"
    return "the result has the right shape and other values"
