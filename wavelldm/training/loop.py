"""One task and one training loop for every network: warm-up, clipping, averaged weights, validation, resume, Ctrl-C.

A `Task` says what is trained on what, `Plan` for how long and how fast, `fit` does it. Several processes train
together, see parallel.py.
"""

import copy
import csv
import math
import os
import pickle
import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..audio.files import writing
from ..config import override
from ..data.clips import Clips
from ..data.corpora import Corpus
from ..errors import WavelldmError
from ..plots import decibels
from ..progress import progress_bar
from ..weights import load, save
from . import parallel
from .options import Options
from .presets import Preset


@dataclass(frozen=True)
class Plan:
    """How long a network is trained, and how fast it learns."""

    steps: int = 20_000
    lr: float = 1e-3  # the highest learning rate
    warmup: int = 500  # steps at the beginning, on which the rate rises in a straight line
    rise: float = 0.0  # share of the other steps on which OneCycle climbs to lr; 0: there is the warm-up alone
    final: float = 0.02  # the rate at the last step, as a share of lr; a cosine leads there. 1: it does not fall
    betas: tuple = (0.9, 0.99)  # of AdamW: how much of the past its averages of gradients keep
    weight_decay: float = 1e-2  # of AdamW
    clip: float = 1.0  # the largest norm of the gradient
    ema: float = 0.999  # how much of the past the averaged model keeps; 0: no average
    valid_every: int = 500  # steps between two validations
    save_every: int = 250  # steps between two checkpoints

    def __post_init__(self) -> None:
        for name in ("steps", "valid_every", "save_every"):
            if getattr(self, name) < 1:
                raise WavelldmError(f"{name} is 1 or more, not {getattr(self, name)}")
        if not (self.lr > 0 and 0 <= self.ema < 1):
            raise WavelldmError(
                f"the learning rate is greater than 0 and ema from 0 to below 1, not {self.lr} and {self.ema}"
            )


class Task:
    """What training one network means. A subclass makes its networks, reads its data and says what the losses are.

    After `__init__` a task has `networks` (name -> module, "model" among them) and `groups` (which networks each loss
    trains); after `read`, or with data at hand `with_data`, also `batches` and held-out `valid` batches.
    """

    network: ClassVar[str]  # its name on the command line, and of its config in a preset
    Network: ClassVar[type[nn.Module]]  # the class of "model"
    Options: ClassVar[type[Options]] = Options
    preset: ClassVar[str] = "base16k"  # whose sizes are taken if nobody names others
    uses_noise: ClassVar[bool] = True  # False: noise and noisy recordings of the speech are of no use to it
    uses_rooms: ClassVar[bool] = False  # True: speech is trained on as it sounds in rooms

    networks: dict[str, nn.Module]
    groups: dict[str, list[str]]
    sr: int
    # batches(first) yields batches (tuples of tensors) from step `first` on, for ever
    batches: Callable[[int], Iterator]
    valid: list
    reads_share: bool = False  # of several processes, each reads its items of a batch alone, not the whole batch
    needs: dict[str, nn.Module]  # loaded networks that the trained one cannot be used without

    def __init__(self, options: Any, device: torch.device | str = "cpu", seed: int = 0):
        torch.manual_seed(seed)
        self.options, self.device, self.seed = options, torch.device(device), seed
        self.half = getattr(options, "half", False) and fast_half(self.device)
        self.valid, self.needs = [], {}

    @classmethod
    def create(
        cls, preset: Preset, changes: list[str], options: Any, device: torch.device | str = "cpu", seed: int = 0
    ) -> "Task":
        """The task with the sizes of a preset, `changes` ("width=32") made to them; loads the networks that it builds
        on."""
        return cls(override(getattr(preset, cls.network), changes), options, device, seed)

    @classmethod
    def plan(cls, steps: int, **changes: Any) -> Plan:
        """The usual plan of this network for so many steps, with some of its fields changed."""
        return Plan(**{"steps": steps, "warmup": min(500, steps // 10)} | changes)

    def read(self, corpus: Corpus) -> None:
        """Get ready to train and validate on a corpus: sets `batches` and `valid`."""
        raise NotImplementedError

    def with_data(self, batches: Callable[[int], Iterator], valid: list) -> "Task":
        """Train and validate on batches that are at hand, instead of a corpus."""
        self.batches, self.valid = batches, valid
        return self

    def losses(self, batch: tuple) -> Iterator[tuple[str, Tensor, dict]]:
        """Yield (group, loss, figures to log), one for each group; each loss is followed at once by its update."""
        raise NotImplementedError

    def validate(self, model: nn.Module) -> dict:
        """Figures of the averaged model on held-out data; "score" chooses the best checkpoint, lower is better."""
        raise NotImplementedError

    def samples(self, model: nn.Module) -> dict:
        """Sounds to listen to: name -> wav (1, N)."""
        return {}

    def start_from(self, name: str) -> None:
        """Begin with weights of the same sizes."""
        adopt(self.networks["model"], load(name, self.Network).state_dict(), name)

    def steps_of(self, epochs: float, corpus: Corpus) -> int:
        """How many steps go through as much speech as there is, `epochs` times."""
        per_step = self.options.batch_size * self.options.seconds
        return max(1, round(epochs * Clips(corpus.speech, self.sr).seconds / per_step))


def fast_half(device: torch.device) -> bool:
    """Whether bfloat16 is worth it: on a GPU, and on processors that multiply it natively (a third faster)."""
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cuda" or native()


CYCLE_START = 1 / 25  # of lr: where OneCycle begins


def learning_rate(step: int, plan: Plan) -> float:
    """Linear warm-up to lr, joined without a jump to a cosine that ends at final * lr (arXiv 1608.03983, eq. 5).

    With `rise` the warm-up ends at lr / 25, and OneCycle (arXiv 1708.07120) follows: a cosine up to lr, and the one
    down.
    """
    start = CYCLE_START if plan.rise else 1.0
    if step < plan.warmup:
        return plan.lr * start * (step + 1) / plan.warmup
    progress = min(1.0, (step - plan.warmup) / max(1, plan.steps - 1 - plan.warmup))
    if progress < plan.rise:
        return plan.lr * (start + (1 - start) * 0.5 * (1 - math.cos(math.pi * progress / plan.rise)))
    fall = (progress - plan.rise) / (1 - plan.rise)
    return plan.lr * (plan.final + (1 - plan.final) * 0.5 * (1 + math.cos(math.pi * fall)))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """EMA of the weights; early on it forgets faster, so that the random start does not linger."""
    decay = min(decay, (1 + step) / (10 + step))
    for a, b in zip(average.parameters(), model.parameters()):
        a.lerp_(b, 1 - decay)
    for a, b in zip(average.buffers(), model.buffers()):
        a.copy_(b)


@contextmanager
def interruptible() -> Iterator[list]:
    """Within it Ctrl-C and SIGTERM only raise a flag, so that a step ends and the run is saved; a second one stops at
    once."""
    asked, before = parallel.ASKED, {}
    asked.clear()

    def ask(*_):
        asked.append(time.monotonic())
        if len(asked) > 1:
            raise KeyboardInterrupt

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    except ValueError:  # not in the main thread: nobody can press Ctrl-C here
        yield asked
        return
    try:
        yield asked
    finally:
        for number, answer in before.items():
            signal.signal(number, answer)
        asked.clear()


def save_checkpoint(path: Path, state: dict) -> None:
    with writing(path, force=True) as part:
        torch.save(state, part)


def load_checkpoint(path: Path) -> dict:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise WavelldmError(
            f"{path} is not a whole checkpoint ({type(error).__name__}); delete it to start anew"
        ) from None


class Log:
    """A CSV file of figures by step, and TensorBoard with sounds where it is installed; on resume, rows past the
    checkpoint go."""

    def __init__(self, path: Path, step: int):
        self.path, self.rows, self.fields = path, [], ["step"]
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter((path.parent / "tensorboard").absolute(), purge_step=step)
        except ImportError:
            self.board = None
        if path.exists() and step > 0:
            with open(path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
            self.fields = list(self.rows[0]) if self.rows else self.fields

    def add(self, step: int, figures: dict, sounds: dict, sr: int) -> None:
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(name, value, step)
            for name, wav in sounds.items():  # (1, N)
                self.board.add_audio(name, wav.clamp(-1, 1), step, sr)
                picture = torch.from_numpy(decibels(wav, sr)).flip(0)
                self.board.add_image(name, ((picture + 95) / 80).clamp(0, 1), step, dataformats="HW")
            self.board.flush()
        row = {"step": step, **{k: f"{v:.6g}" for k, v in figures.items()}}
        self.fields += [k for k in row if k not in self.fields]
        self.rows.append(row)
        with writing(self.path, force=True) as part, open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, self.fields, restval="")
            writer.writeheader()
            writer.writerows(self.rows)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def resume(path: Path, task: Task, optimisers: dict, average: nn.Module) -> tuple[int, float]:
    """Put everything back where last.pt left it -> the step and the best score so far."""
    state = load_checkpoint(path)
    try:
        task.networks["model"].load_state_dict(state["networks"].pop("model"))
        for name, weights in state["networks"].items():
            task.networks[name].load_state_dict(weights)  # a network that is not in there yet (critics) joins now
        for group, optimiser_state in state["optimisers"].items():
            optimisers[group].load_state_dict(optimiser_state)
        average.load_state_dict(state["average"])
    except (KeyError, RuntimeError, ValueError):
        raise WavelldmError(f"{path.parent} holds a run of another model; name another folder or delete it") from None
    return state["step"], state["best"]


def fit(task: Task, plan: Plan, folder: str | Path, progress: bool = True) -> dict:
    """Train until plan.steps, or go on with the run that lies in `folder`.

    Writes last.pt (everything needed to go on), best.pt (the same of the step that validated best, with the averaged
    model, its score, the plan and the learning rate) and log.csv. Where something fails, in one process of several too,
    last.pt is of the last step that was done, unless it failed between the updates of two losses. A run that was
    stopped and resumed, by as many processes or by others, equals one that was not: batches and random numbers depend
    on the seed and the step alone. Returns the step reached, the steps planned, whether it was stopped, and the best
    score.
    """
    folder, first = Path(folder), parallel.rank() == 0
    folder.mkdir(parents=True, exist_ok=True)
    optimisers = {
        group: torch.optim.AdamW(
            [p for name in names for p in task.networks[name].parameters()],
            plan.lr,
            plan.betas,
            weight_decay=plan.weight_decay,
        )
        for group, names in task.groups.items()
    }
    average = copy.deepcopy(task.networks["model"]).eval().requires_grad_(False)
    step, best = 0, math.inf
    if (folder / "last.pt").exists():
        step, best = resume(folder / "last.pt", task, optimisers, average)
    if task.options.compile:
        check_compiler(task.device)
        for network in task.networks.values():
            compiled(network)
    parallel.wait()  # nobody writes while another one still reads

    def state() -> dict:
        found = {"step": step, "best": best, "average": average.state_dict()}
        found["networks"] = {name: network.state_dict() for name, network in task.networks.items()}
        return found | {"optimisers": {group: optimiser.state_dict() for group, optimiser in optimisers.items()}}

    log = Log(folder / "log.csv", step) if first else None
    since, figures = time.perf_counter(), {}
    bar = progress_bar(
        show=progress and first, total=plan.steps, initial=step, unit="step", leave=True, mininterval=1.0
    )
    between, begun = False, step
    with interruptible() as asked, bar, closing(log) if first else nullcontext():
        try:
            for batch in task.batches(step) if step < plan.steps else ():
                torch.manual_seed(task.seed * 1_000_003 + step)  # dropout etc.: from the seed and the step alone
                rate = learning_rate(step, plan)
                for group, found in stages(task, batch, optimisers):
                    parallel.average_gradients(weights_of(optimisers[group]))
                    between = True  # two steps; what is saved now could not be gone on from
                    update(optimisers[group], rate, plan.clip)
                    for name, value in found.items():
                        figures.setdefault(name, []).append(value)
                update_average(average, task.networks["model"], plan.ema, step)
                step, between = step + 1, False
                bar.update()
                ended = parallel.anyone(bool(asked), task.device) or step >= plan.steps
                if first and (step % plan.valid_every == 0 or step >= plan.steps):
                    measured = task.validate(average)
                    means = {name: sum(values) / len(values) for name, values in figures.items()}
                    row = {**measured, **means, "lr": rate, "seconds": time.perf_counter() - since}
                    log.add(step, row, task.samples(average), task.sr)
                    since, figures = time.perf_counter(), {}
                    bar.set_postfix_str(" ".join(f"{k} {v:.3f}" for k, v in measured.items()))
                    if measured["score"] < best:
                        best = float(measured["score"])
                        found = {"score": best, "model": average.state_dict(), "plan": asdict(plan), "lr": rate}
                        save_checkpoint(folder / "best.pt", {**state(), **found})
                if first and (step % plan.save_every == 0 or ended):
                    save_checkpoint(folder / "last.pt", state())
                if ended:
                    break
        except BaseException:
            if step > begun and not between:
                save_checkpoint(folder / "last.pt", state())  # all processes hold the same: whoever is left saves it
            raise
    parallel.wait()  # nobody hangs up while another still measures
    found = {"step": step, "steps": plan.steps, "stopped": step < plan.steps}
    return found | {"best": best if math.isfinite(best) else None}


def stages(task: Task, batch: tuple, optimisers: dict) -> Iterator[tuple[str, dict]]:
    """Go through the losses of our share of a batch, in as many turns as the options say, up to the gradients -> each
    group, ready for its update, with figures to log. All turns draw as one."""
    turns, held = task.options.accumulate, len(batch[0]) * (parallel.world() if task.reads_share else 1)
    size = held // (parallel.world() * turns)
    if size * parallel.world() * turns != held:
        raise WavelldmError(
            f"a batch of {held} cannot be shared evenly by {parallel.world()} processes in {turns} turns; change "
            "batch_size or accumulate"
        )
    if turns == 1 and parallel.world() == 1:
        for group, loss, extra in task.losses(batch):
            optimisers[group].zero_grad(set_to_none=True)
            loss.backward()
            yield group, {name: float(value) for name, value in {group: loss.detach(), **extra}.items()}
        return
    going = []
    for turn in range(turns):
        with parallel.drawing(size, turn, turns):
            going.append(task.losses(parallel.share(batch, task.reads_share)))
    while True:
        begun, found, group = random_state(task.device), {}, None
        for turn, losses in enumerate(going):
            set_random_state(task.device, begun)
            with parallel.drawing(size, turn, turns):
                answer = next(losses, None)
            if answer is None:
                return
            group, loss, extra = answer
            if turn == 0:
                optimisers[group].zero_grad(set_to_none=True)
            (loss / turns).backward()
            for name, value in {group: loss.detach(), **extra}.items():
                found[name] = found.get(name, 0.0) + float(value) / turns
        yield group, found


def random_state(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def set_random_state(device: torch.device, state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)


def weights_of(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimiser.param_groups for p in group["params"]]


def update(optimiser: torch.optim.Optimizer, rate: float, clip: float) -> None:
    """One step of one optimiser; a gradient that is not finite is refused before it ruins the weights."""
    norm = nn.utils.clip_grad_norm_(weights_of(optimiser), clip)
    if not torch.isfinite(norm):
        raise WavelldmError(
            "the loss is no longer a finite number; lower the learning rate and resume from the last checkpoint"
        )
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()


COMPILER = "inductor"  # what torch.compile makes the networks faster with


def check_compiler(device: torch.device) -> None:
    """On a CPU inductor writes C++ that it compiles for Python."""
    if COMPILER != "inductor" or device.type != "cpu":
        return
    compiler = os.environ.get("CXX", {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++"))
    header = Path(sysconfig.get_path("include")) / "Python.h"
    for there, what in ((shutil.which(compiler), f"the C++ compiler {compiler}"), (header.exists(), str(header))):
        if not there:
            raise WavelldmError(f"--compile needs {what}, which is not there; install it, or leave --compile out")


def compiled(network: nn.Module) -> None:
    """Compile the parts of a network, each on its own: many tasks call the parts rather than the whole."""
    for part in network.children():
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            compiled(part)
        else:
            part.compile(backend=COMPILER, dynamic=False)


def adopt(model: nn.Module, weights: dict, name: str) -> None:
    """Give a model the weights of another one, which were read from `name`."""
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise WavelldmError(
            f"{name} holds a network of another size; --set the numbers it was made with, or start without it"
        ) from None


def write_weights(
    task: Task,
    plan: Plan,
    folder: str | Path,
    name: str,
    eight_bits: bool = False,
    six_bits: tuple[str, ...] = (),
) -> Path | None:
    """The averaged model of best.pt -> FOLDER/NAME.safetensors, which `weights.load` takes. None if nothing was
    validated. `eight_bits`, `six_bits`: see `weights.save`."""
    folder = Path(folder)
    if parallel.rank() > 0 or not (folder / "best.pt").exists():
        return None
    best, model = load_checkpoint(folder / "best.pt"), task.networks["model"]
    model.load_state_dict(best["model"])
    numbers = {k: v for k, v in asdict(task.options).items() if not isinstance(v, str)}
    facts = {"steps": best["step"], "score": round(best["score"], 4), "seed": task.seed}
    facts |= {"plan": asdict(plan), "options": numbers}
    rounding = {"eight_bits": eight_bits, "six_bits": six_bits}
    return save(folder / name, model, needs=task.needs, force=True, **rounding, **facts)
