"""A training loop by the processor clock: so many minutes of one thread (whatever else runs), cosine over them, EMA,
checkpoints from which it goes on after a kill."""

import copy
import csv
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from wavelldm.weights import SCALE, as_bytes


@dataclass(frozen=True)
class Plan:
    minutes: float = 20.0  # of processor time in training; validation is not counted
    lr: float = 1e-3
    warmup: int = 100
    final: float = 0.02  # of lr at the end
    ema: float = 0.998
    clip: float = 1.0
    weight_decay: float = 1e-2
    save_every: float = 90.0  # seconds
    valid_every: float = 240.0  # seconds
    bf16: bool = True
    seed: int = 1


def rate(step: int, progress: float, plan: Plan) -> float:
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return plan.lr * min(1.0, (step + 1) / plan.warmup) * (plan.final + (1 - plan.final) * fall)


def train(
    folder: Path,
    model: nn.Module,
    loss_of,
    validate,
    plan: Plan,
    stop_at: float | None = None,
    extra: dict | None = None,
) -> nn.Module:
    """loss_of(model, rng, step) -> (loss, figures). validate(model) -> figures. `extra`: modules or optimisers with a
    state_dict that are kept, too. -> the averaged model. `stop_at`: seconds since 1970 at which it saves and stops
    whatever is left."""
    folder.mkdir(parents=True, exist_ok=True)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    wanted = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(wanted, lr=plan.lr, betas=(0.9, 0.99), weight_decay=plan.weight_decay)
    step, spent, keep = 0, 0.0, folder / "last.pt"
    if keep.exists():
        state = torch.load(keep, weights_only=False)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
        for name, part in (extra or {}).items():
            part.load_state_dict(state["extra"][name])
        print(f"goes on from step {step}, {spent / 60:.1f} min", flush=True)

    def save():
        parts = {k: v.state_dict() for k, v in (extra or {}).items()}
        state = {
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": step,
            "spent": spent,
            "extra": parts,
        }
        torch.save(state, folder / "part.pt")
        os.replace(folder / "part.pt", keep)

    def log(row):
        print(" ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        with open(folder / "log.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")

    sums, count = {}, 0
    saved = validated = spent
    while spent < 60 * plan.minutes and (stop_at is None or time.time() < stop_at):
        began = time.process_time()
        for group in optimiser.param_groups:
            group["lr"] = rate(step, spent / (60 * plan.minutes), plan)
        model.train()
        rng = np.random.default_rng([plan.seed, step])
        torch.manual_seed(plan.seed * 1_000_003 + step)
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.bf16):
            loss, figures = loss_of(model, rng, step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(wanted, plan.clip)
        if torch.isfinite(norm):
            optimiser.step()
        decay = min(plan.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for a, b in zip(average.parameters(), model.parameters()):
                a.lerp_(b, 1 - decay)
            for a, b in zip(average.buffers(), model.buffers()):
                a.copy_(b)
        step += 1
        count += 1
        for k, v in figures.items():
            sums[k] = sums.get(k, 0.0) + float(v.detach() if isinstance(v, torch.Tensor) else v)
        spent += time.process_time() - began
        if spent - saved > plan.save_every:
            save()
            saved = spent
        if count == 100 or step in (10, 30):
            log({"step": step, "min": round(spent / 60, 2), **{k: v / count for k, v in sums.items()}})
            sums, count = {}, 0
        if spent - validated > plan.valid_every:
            validated = spent
            with torch.no_grad():
                log(
                    {
                        "step": step,
                        "min": round(spent / 60, 2),
                        **{f"valid_{k}": float(v) for k, v in validate(average).items()},
                    }
                )
    save()
    with torch.no_grad():
        log(
            {
                "step": step,
                "min": round(spent / 60, 2),
                "done": int(spent >= 60 * plan.minutes),
                **{f"valid_{k}": float(v) for k, v in validate(average).items()},
            }
        )
    return average


def publish(path: Path, model: nn.Module, config, facts: dict, eight_bits: bool = False) -> None:
    """fp16 weights, or matrices in bytes, and a json with what they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.half().contiguous() for k, v in model.state_dict().items()}
    for name, x in model.state_dict().items() if eight_bits else ():
        if x.dim() > 1:
            tensors[name], tensors[name + SCALE] = as_bytes(x)
    save_file(tensors, path.with_suffix(".safetensors"))
    path.with_suffix(".json").write_text(
        json.dumps({"config": asdict(config), "licence": "CC BY 4.0", **facts}, indent=1)
    )


def restored(path: Path, build) -> nn.Module:
    """`build(config as a dict)` -> module, filled with the weights at `path`."""
    facts = json.loads(path.with_suffix(".json").read_text())
    model = build(facts["config"])
    tensors = load_file(path.with_suffix(".safetensors"))
    scales = {k.removesuffix(SCALE): tensors.pop(k) for k in list(tensors) if k.endswith(SCALE)}
    model.load_state_dict({k: v.float() * scales.get(k, 1.0) for k, v in tensors.items()})
    return model.eval().requires_grad_(False)


def sources(manifest: Path, kinds=("speech",)) -> list:
    rows = csv.DictReader(open(manifest), delimiter="\t")
    return sorted({f"{r['source']} ({r['licence']})" for r in rows if r["split"] == "train" and r["kind"] in kinds})
