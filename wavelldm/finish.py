"""From a task to weights: train it to the end, and write the averaged model that validated best."""

from dataclasses import asdict
from pathlib import Path

from . import parallel
from .config import Preset
from .errors import WavelldmError
from .train import Plan, fit, load_checkpoint
from .weights import save


def adopt(model, other, name) -> None:
    """Begin with the weights of `other`, which were read from `name`."""
    try:
        model.load_state_dict(other.state_dict())
    except RuntimeError:
        raise WavelldmError(f"{name} holds a network of another size; --set the numbers it was made with, or start without it") from None


def train_to_weights(task, batches, plan: Plan, folder, name: str, preset: Preset, progress: bool = True) -> dict:
    """`train.fit` in `folder`, then FOLDER/NAME.safetensors, which `weights.load_...` takes. Returns what `fit` does."""
    try:
        result = fit(task, batches, plan, folder, progress)
    finally:
        first = parallel.rank() == 0
        parallel.end()
    if first and result["best"] is not None:
        best, model = load_checkpoint(Path(folder) / "best.pt"), task.networks["model"]
        model.load_state_dict(best["model"])
        facts = {"steps": best["step"], "score": round(best["score"], 4), "plan": asdict(plan)}
        save(Path(folder) / name, model, preset, facts, force=True)
    return result
