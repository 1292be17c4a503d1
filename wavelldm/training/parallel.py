"""Several processes, one training run: `torchrun --nproc-per-node 2 -m wavelldm train ...`.

Data-parallel training by hand: every process takes every W-th item of the same global batch, and the gradients are
averaged before each update, so that all hold the same weights all the time, those that one process alone would have
computed.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import WavelldmError
from ..weights import check_device

T = TypeVar("T")


PATIENCE = timedelta(days=1)  # how long the others wait while the first decodes or encodes a corpus


@contextmanager
def joined(device: str | None = None) -> Iterator[torch.device]:
    """Within it the processes that torchrun started work together. Gives the device that is ours.

    `device`: cpu, cuda or mps; by default a GPU that CUDA knows, if there is one.
    """
    ours = check_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    if several and ours.type == "mps":
        raise WavelldmError("several processes train together on --device cpu or cuda, not mps")
    if several and ours.type == "cuda":
        ours = check_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
    if ours.type == "cuda":
        torch.cuda.set_device(ours)
    if several:
        dist.init_process_group("nccl" if ours.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield ours
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def share(batch: tuple) -> tuple:
    """Our part of a global batch of tensors (B, ...) -> (B / W, ...)."""
    return tuple(x[rank() :: world()] for x in batch)


def average_gradients(weights: list) -> None:
    """The mean of the gradients of all processes, in one message."""
    if world() == 1:
        return
    grads = [w.grad for w in weights if w.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    for g, part in zip(grads, (flat / world()).split([g.numel() for g in grads])):
        g.copy_(part.view_as(g))


def anyone(flag: bool, device: torch.device | str = "cpu") -> bool:
    """True for all if it is true for one: so that Ctrl-C stops all after the same step."""
    if world() == 1:
        return flag
    asked = Tensor([float(flag)]).to(device)
    dist.all_reduce(asked)
    return bool(asked.item())


def in_turn(make: Callable[[], T]) -> T:
    """make(), first by one process, then by the others, which find what it left on disk."""
    if rank() > 0:
        wait()
    made = make()
    if rank() == 0:
        wait()
    return made


def wait() -> None:
    if world() > 1:
        dist.barrier()
