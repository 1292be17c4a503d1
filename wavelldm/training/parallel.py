"""Several processes, one training run: `torchrun --nproc-per-node 2 -m wavelldm train ...`.

Data-parallel training by hand: every process takes every W-th item of the same global batch, and the gradients are averaged
before each update, so that all hold the same weights all the time, those that one process alone would have computed.
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor


def begin() -> torch.device:
    """Join the others if torchrun started this process; returns the device that is ours."""
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", 0))
    if "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return torch.device("cuda", local) if cuda else torch.device("cpu")


def end() -> None:
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
    """The mean of everybody's gradients, in one message."""
    if world() == 1:
        return
    grads = [w.grad for w in weights if w.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    for g, part in zip(grads, (flat / world()).split([g.numel() for g in grads])):
        g.copy_(part.view_as(g))


def anyone(flag: bool, device: torch.device | str = "cpu") -> bool:
    """True for all if it is true for one: so that Ctrl-C stops everybody after the same step."""
    if world() == 1:
        return flag
    asked = Tensor([float(flag)]).to(device)
    dist.all_reduce(asked)
    return bool(asked.item())


def in_turn(make):
    """make(), by the first process before all others: what it leaves on disk they find."""
    if rank() > 0:
        wait()
    made = make()
    if rank() == 0:
        wait()
    return made


def wait() -> None:
    if world() > 1:
        dist.barrier()
