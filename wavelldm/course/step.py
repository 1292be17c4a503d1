"""What a step is that a reader writes, and numbers to try it on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One step: what it should do, arguments to try it on, and for each hint a function that errs in that way.
    `seen` says what is compared, as a list: the answer alone, or more, such as its gradients."""

    right: Callable
    arguments: Callable[[torch.Generator], list[tuple]]
    slips: dict[str, Callable]
    seen: Callable[..., list] = lambda answer, *_: [answer]


def some(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g)
