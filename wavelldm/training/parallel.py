"""Several processes, one training run: `torchrun --nproc-per-node 2 -m wavelldm train ...`.

Data-parallel training by hand: every process takes every W-th item of the same global batch, and the gradients are
averaged before each update, so that all hold the same weights all the time, those that one process alone would have
computed. A process may take its items in several turns, one after the other, to need less memory: K turns of W
processes are as W * K processes.

So that the sum is the same, random numbers are drawn for the whole batch, and each takes those of its items
(`drawing`); and where a loss divides by a mean over the batch, that mean is over all (`mean_of_all`).
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import WavelldmError
from ..weights import check_device

T = TypeVar("T")
TURN: ContextVar[tuple[int, int]] = ContextVar("TURN", default=(0, 1))  # which of how many turns this is

PATIENCE = timedelta(days=1)  # how long the others wait while the first decodes or encodes a corpus
ASKED: list[float] = []  # when we were asked to stop, by Ctrl-C or SIGTERM
LEAVE = 10.0  # seconds after which who was asked to stop leaves without the others; torchrun kills after 30
POLL = 2e-4  # seconds between two looks whether a message is through
BEAT, SILENT = 0.5, 3.0  # seconds between two signs of life of a process, and without one until it counts as gone
STORE: list[dist.Store] = []  # where the processes leave words for each other: torchrun keeps it


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
    if not several:
        yield ours
        return
    store, its_rank, size = next(dist.rendezvous("env://"))
    backend = "nccl" if ours.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=its_rank, world_size=size, timeout=PATIENCE)
    STORE[:] = [dist.PrefixStore("wavelldm", store)]
    try:
        with signs_of_life():
            yield ours
    except BaseException as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        with suppress(Exception):  # whoever is first to know tells all
            STORE[0].compare_set("failed", "", f"the process of rank {its_rank} failed: {reason}")
        raise
    finally:
        STORE.clear()
        dist.destroy_process_group()


@contextmanager
def signs_of_life() -> Iterator[None]:
    """Within it we count up in the store, once in a while: who hangs or is dead does not."""
    over, store = threading.Event(), STORE[0]

    def beat() -> None:
        with suppress(Exception):  # the store is gone: the others will notice
            while not over.wait(BEAT):
                store.add(f"alive{rank()}", 1)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def gone() -> WavelldmError:
    """What to say when the others do not answer: who failed, as it said itself, or as its silence tells."""
    told = "another process failed or hangs"
    with suppress(Exception):
        store, everyone = STORE[0], range(world())
        if not store.check(["failed"]):
            before = [store.add(f"alive{i}", 0) for i in everyone]
            time.sleep(SILENT)
            silent = [str(i) for i in everyone if store.add(f"alive{i}", 0) == before[i]]
            if silent:
                store.compare_set("failed", "", f"the process of rank {' and '.join(silent)} died or hangs")
        told = store.get("failed").decode()
    return WavelldmError(f"{told.rstrip('.')}; the same command goes on from the last step that was saved")


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def parts() -> tuple[int, int]:
    """Which part of the global batch is worked on now, and how many there are: of all processes and their turns."""
    turn, turns = TURN.get()
    return rank() + world() * turn, world() * turns


def place() -> tuple[int, int]:
    """Which process we are, and how many there are."""
    return rank(), world()


def share(batch: tuple, ours: bool = False) -> tuple:
    """Our part of a global batch of tensors (B, ...) -> (B / parts, ...). ours: it holds the items of our process alone
    already."""
    part, count = TURN.get() if ours else parts()
    return tuple(x[part::count] for x in batch)


SHAPED = (torch.rand, torch.randn)  # draw by a shape
ALIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}  # by the shape of a tensor


class Drawing(TorchFunctionMode):
    """Within it, numbers drawn for each of `size` items are our share of those that are drawn for the whole batch."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def __torch_function__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        kwargs = kwargs or {}
        if "generator" not in kwargs or kwargs["generator"] is None:
            if func in ALIKE and self.each(args[0].shape):
                like = {"dtype": args[0].dtype, "device": args[0].device} | kwargs
                return self.drawn(ALIKE[func], (), args[0].shape, like)
            if func in SHAPED:
                shape = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
                if self.each(shape):
                    return self.drawn(func, (), shape, kwargs)
            if func is torch.randint:
                at = next(i for i, x in enumerate(args) if isinstance(x, tuple | list | torch.Size))
                if self.each(args[at]):
                    return self.drawn(func, args[:at], args[at], kwargs)
            if func is F.dropout:
                return self.dropped(*args, **kwargs)
        return func(*args, **kwargs)

    def each(self, shape: tuple) -> bool:
        return len(shape) > 0 and shape[0] == self.size

    def drawn(self, func: Callable, before: tuple, shape: tuple, kwargs: dict) -> Tensor:
        part, count = parts()
        return func(*before, (shape[0] * count, *shape[1:]), **kwargs)[part::count]

    def dropped(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """Dropout by a mask that is drawn as PyTorch draws it."""
        if not training or p == 0 or not self.each(x.shape):
            return F.dropout(x, p, training, inplace)
        part, count = parts()
        kept = torch.empty(len(x) * count, *x.shape[1:], dtype=x.dtype, device=x.device).bernoulli_(1 - p)
        return x * kept.div_(1 - p)[part::count]


@contextmanager
def drawing(size: int, turn: int = 0, turns: int = 1) -> Iterator[None]:
    """Within it `share` and random numbers are those of our `size` items, in this turn."""
    token = TURN.set((turn, turns))
    try:
        with Drawing(size) if world() * turns > 1 else nullcontext():
            yield
    finally:
        TURN.reset(token)


def add_up(x: Tensor) -> None:
    """x becomes the sum over all processes."""
    done(lambda: dist.all_reduce(x, async_op=True))


def done(begin: Callable[[], dist.Work]) -> None:
    """Do something together. Waits in Python, which hears signals: where another process hangs, one that was asked to
    stop does not hang with it."""
    try:
        work = begin()
        while not work.is_completed():
            if ASKED and time.monotonic() - ASKED[0] > LEAVE:
                raise gone()
            time.sleep(POLL)
        work.wait()
    except RuntimeError as error:
        raise gone() from error


def mean_of_all(x: Tensor) -> Tensor:
    """The mean of x over all processes, without a gradient: for what a loss divides by."""
    x = x.detach().clone()
    if world() > 1:
        add_up(x)
        x /= world()
    return x


def average_gradients(weights: list) -> None:
    """The mean of the gradients of all processes, in one message."""
    if world() == 1:
        return
    grads = [w.grad for w in weights if w.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    add_up(flat)
    for g, part in zip(grads, (flat / world()).split([g.numel() for g in grads])):
        g.copy_(part.view_as(g))


def anyone(flag: bool, device: torch.device | str = "cpu") -> bool:
    """True for all if it is true for one: so that Ctrl-C stops all after the same step."""
    if world() == 1:
        return flag
    asked = Tensor([float(flag)]).to(device)
    add_up(asked)
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
        done(lambda: dist.barrier(async_op=True))
