"""One plain training loop for every network of the course: warm-up, clipping, EMA, validation, resume, Ctrl-C.

A *task* says what is trained: `networks` (name -> module, "model" among them), `groups` (which networks each loss trains),
`losses(batch)`, a generator of (group, loss, figures to log), `validate(model)` -> figures with "score", lower is better,
and `samples(model)` -> sounds (name -> (1, N)) at the rate `sr`. Several processes train together, see parallel.py.
"""

import copy
import csv
import math
import pickle
import signal
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..audio.files import writing
from ..errors import WavelldmError
from ..plots import decibels
from ..weights import save
from . import parallel


@dataclass(frozen=True)
class Plan:
    """How long, how large, how fast."""

    steps: int = 20_000
    lr: float = 5e-4
    warmup: int = 500  # steps of linear rise
    rise: float = 0.0  # share of the other steps on which OneCycle climbs to lr; 0: the warm-up alone does
    final: float = 0.02  # of lr, reached by a cosine at the last step
    betas: tuple = (0.9, 0.99)
    weight_decay: float = 1e-2
    clip: float = 1.0  # largest gradient norm
    ema: float = 0.999  # weight of the past in the averaged model
    valid_every: int = 500
    save_every: int = 250
    seed: int = 0


def fast_half(device: torch.device) -> bool:
    """Whether bfloat16 is worth it: on a GPU, and on processors that multiply it natively (a third faster, measured)."""
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cuda" or native()


CYCLE_START = 1 / 25  # of lr: where OneCycle begins


def learning_rate(step: int, plan: Plan) -> float:
    """Linear warm-up to lr, joined without a jump to a cosine that ends at final * lr (arXiv 1608.03983, eq. 5).

    With `rise` the warm-up ends at lr / 25, and OneCycle (arXiv 1708.07120) follows: a cosine up to lr, and the one down.
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
def follow(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """EMA of the weights; early on it forgets faster, so that the random start does not linger."""
    decay = min(decay, (1 + step) / (10 + step))
    for a, b in zip(average.parameters(), model.parameters()):
        a.lerp_(b, 1 - decay)
    for a, b in zip(average.buffers(), model.buffers()):
        a.copy_(b)


@contextmanager
def interruptible():
    """Within it Ctrl-C only raises a flag, so that a step ends and the run is saved; a second Ctrl-C stops at once."""
    asked = []

    def ask(*_):
        if asked:
            raise KeyboardInterrupt
        asked.append(True)

    try:
        before = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not in the main thread: nobody can press Ctrl-C here
        yield asked
        return
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


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
    """A CSV file of figures by step, and TensorBoard with sounds where it is installed; on resume, rows past the checkpoint go."""

    def __init__(self, path: Path, step: int):
        self.path, self.rows, self.fields = path, [], ["step"]
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(path.parent / "tensorboard", purge_step=step)
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


def resume(path: Path, task, optimisers: dict, average: nn.Module) -> tuple[int, float]:
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


def fit(task, batches, plan: Plan, folder, progress: bool = True) -> dict:
    """Train until plan.steps; `batches(start)` yields batches (tuples of tensors) from that step on. Resumes what lies in `folder`.

    Writes last.pt (everything needed to go on), best.pt (the same of the step that validated best, with the averaged model, its
    score, the plan and the learning rate) and log.csv. A run that was stopped and resumed equals one that was not: batches and
    random numbers depend on the seed and the step alone.
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
    parallel.wait()  # nobody writes while another one still reads

    def state() -> dict:
        found = {"step": step, "best": best, "average": average.state_dict()}
        found["networks"] = {name: network.state_dict() for name, network in task.networks.items()}
        return found | {"optimisers": {group: optimiser.state_dict() for group, optimiser in optimisers.items()}}

    log = Log(folder / "log.csv", step) if first else None
    since, figures = time.perf_counter(), {}
    bar = tqdm(total=plan.steps, initial=step, unit="step", disable=not (progress and first), mininterval=1.0)
    with interruptible() as asked, bar:
        for batch in batches(step) if step < plan.steps else ():
            torch.manual_seed(plan.seed * 1_000_003 + step)  # dropout and the like: from the seed and the step alone
            rate = learning_rate(step, plan)
            for group, loss, extra in task.losses(parallel.share(batch)):
                update(optimisers[group], loss, rate, plan.clip)
                for name, value in {group: loss.detach(), **extra}.items():
                    figures.setdefault(name, []).append(float(value))
            follow(average, task.networks["model"], plan.ema, step)
            step += 1
            bar.update()
            ended = parallel.anyone(bool(asked), loss.device) or step >= plan.steps
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
    parallel.wait()  # nobody hangs up while another still measures
    return {"step": step, "best": best if math.isfinite(best) else None, "stopped": step < plan.steps}


def update(optimiser: torch.optim.Optimizer, loss: Tensor, rate: float, clip: float) -> None:
    """One step of one optimiser; a loss or gradient that is not finite is refused before it ruins the weights."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    weights = [p for group in optimiser.param_groups for p in group["params"]]
    parallel.average_gradients(weights)
    norm = nn.utils.clip_grad_norm_(weights, clip)
    if not torch.isfinite(norm):
        raise WavelldmError(
            "the loss is no longer a finite number; lower the learning rate and resume from the last checkpoint"
        )
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()


def adopt(model, other, name) -> None:
    """Begin with the weights of `other`, which were read from `name`."""
    try:
        model.load_state_dict(other.state_dict())
    except RuntimeError:
        raise WavelldmError(
            f"{name} holds a network of another size; --set the numbers it was made with, or start without it"
        ) from None


def train_to_weights(
    task, batches, plan: Plan, folder, name: str, needs: dict | None = None, progress: bool = True
) -> dict:
    """`train.fit` in `folder`, then FOLDER/NAME.safetensors, which `weights.load` takes. Returns what `fit` does."""
    try:
        result = fit(task, batches, plan, folder, progress)
    finally:
        first = parallel.rank() == 0
        parallel.end()
    if first and result["best"] is not None:
        best, model = load_checkpoint(Path(folder) / "best.pt"), task.networks["model"]
        model.load_state_dict(best["model"])
        facts = {"steps": best["step"], "score": round(best["score"], 4), "plan": asdict(plan)}
        save(Path(folder) / name, model, needs=needs, force=True, **facts)
    return result
