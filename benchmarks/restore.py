"""Measure what brings back lost speech: gaps, lost packets, missing bands, clipping, rooms; every system on the same
damaged clips, in the same run.

    python benchmarks/restore.py [--manifest TABLE] [--clips 16] [--tasks NAME ...] [--only NAME ...] [--quick]
    [--steps 4 ...] [--blind] [--tplcnet FILE] [--latent WEIGHTS] [--filler WEIGHTS]

Without a manifest it takes the held-out voices and noises of the embedded corpus. Peers run if they are at hand:
tPLCNet (a file, and the package ai-edge-litert), Opus (opuscodec), ffmpeg's adeclip (imageio-ffmpeg), nara-wpe. What is
missing is named. The clips that ours helps least are drawn into out/restore; with --blind, one step of the network and
several too, without saying which is which (key.csv says it).
"""

import argparse
import csv
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import judges
import numpy as np
import torch
from damaged import TASKS, Clip, clips
from denoise import HERE, SECONDS, SR
from repairs import ASIS, BOTH, CEILING, PLAIN, PLAINLY, RESTORE, missing, systems
from report import ROOT, line, made_by, source, write_section
from torch import Tensor
from tqdm import tqdm

from wavelldm import plots
from wavelldm.audio.files import save
from wavelldm.denoise.denoiser import BEST

OUT = ROOT / "out" / "restore"
WORST = 10  # clips that are drawn
UNCHANGED = 1e-4  # samples that differ by less count as they were


def ours(task: str) -> str:
    """The system that a user would take: the one that cleans too, where there is noise."""
    return BOTH if TASKS[task].noisy else RESTORE


def processor() -> float:
    """Seconds of this process and of those that it waited for."""
    return sum(os.times()[:4])


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def measure(makers: dict, found: list) -> tuple[list, dict]:
    """A row for every system and clip; what ours and the network alone made, and every system of clips with nothing to
    repair: (system, task, number) -> (1, N)."""
    rows, outs, scored = [], {}, {}
    with ProcessPoolExecutor(cores()) as pool, torch.inference_mode():
        for name, (tasks, make) in tqdm(makers.items(), "measuring", unit="system"):
            run = make()
            for clip in (c for c in found if c.task in tasks):
                began = processor()
                out = run(clip.damaged, clip)
                cost = (processor() - began) / SECONDS
                if name == ours(clip.task) or clip.task == "nothing" or ", one step" in name or name.endswith("steps"):
                    outs[name, clip.task, clip.number] = out
                key = clip.task, clip.number, hashlib.sha1(out.numpy().tobytes()).digest()
                if key not in scored:  # systems that do nothing here answer alike
                    job = (clip.clean[0].numpy(), out[0].numpy(), SR, TASKS[clip.task].scores, clip.cutoff)
                    scored[key] = pool.submit(judges.score, job)
                row = {"task": clip.task, "system": name, "clip": clip.number, "speaker": clip.speaker, "cost": cost}
                rows.append((row, scored[key]))
        return [row | scores.result() for row, scores in rows], outs


# --- tables


def column(rows: list, task: str, system: str, name: str) -> list:
    return [r.get(name) for r in rows if r["task"] == task and r["system"] == system]


def in_task(rows: list, task: str) -> list:
    return list(dict.fromkeys(r["system"] for r in rows if r["task"] == task))


def plainest(names: list, cleaned: bool) -> str | None:
    """The row that others are compared with: in noise that with the denoiser, for those that clean too."""
    wanted = (f"{BEST}, then {PLAIN}", f"{PLAIN}, then {BEST}") if cleaned else ()
    return next((n for n in (*wanted, PLAIN, ASIS) if n in names), None)


def pairs(task: str, names: list) -> list:
    """(system, what it is compared with): the plain way, and several steps of the network with one."""
    found = []
    for name in names:
        one = re.sub(r"network, \d+ steps$", "network, one step", name)
        if one != name and one in names:
            found.append((name, one))
        against = plainest(names, TASKS[task].noisy and (BEST in name or BOTH in name))
        if against and name not in (ASIS, PLAIN, against):
            found.append((name, against))
    return found


def table(rows: list, task: str) -> str:
    scores, names = TASKS[task].scores, in_task(rows, task)
    lines = [line(["system", *(judges.LABELS[s] for s in scores), "CPU s per s"])]
    lines.append("| --- |" + " ---: |" * (len(scores) + 1))
    for name in names:
        cells = [judges.cell(column(rows, task, name, s), s) for s in scores]
        lines.append(line([name, *cells, f"{np.median(column(rows, task, name, 'cost')):.3f}"]))
    for name, against in pairs(task, names):
        both = [[column(rows, task, n, s) for n in (name, against)] for s in scores]
        cells = [judges.cell(judges.differences(*b), s, signed=True) for b, s in zip(both, scores)]
        lines.append(line([f"*{name} - {against}*", *cells, ""]))
    return "\n".join(lines)


def section(rows: list, task: str) -> str:
    count = len({r["clip"] for r in rows if r["task"] == task})
    plainly = f" Plain: {PLAINLY[task]}." if task in PLAINLY else ""
    return f"### {task[0].upper()}{task[1:]}\n\n{count} clips. {TASKS[task].caption}{plainly}\n\n{table(rows, task)}"


def short(rows: list, tasks: list) -> str:
    """A line for each task: WB-PESQ / ESTOI as it is, the plain way, ours, the peer, and the best there could be."""
    lines = [line(["", ASIS, PLAIN, "ours", "peer", "ceiling"]), "| --- |" + " ---: |" * 5]
    for task in tasks:
        names, noisy = in_task(rows, task), TASKS[task].noisy
        peer = next((n for n in reversed(names) if "tPLCNet" in n or "adeclip" in n), None)
        best = next((n for n in names if n.endswith(CEILING)), None)
        cells = []
        for name in (ASIS, plainest(names, noisy) if task in PLAINLY else None, ours(task), peer, best):
            values = [judges.interval(column(rows, task, name, s))[0] for s in ("pesq_wb", "estoi")]
            cells.append("{:.2f} / {:.1f}".format(*values) if name in names else "")
        lines.append(line([task, *cells]))
    return "\n".join(lines)


def changed(outs: dict) -> str:
    """How many clips with nothing to repair come out otherwise than without restoration."""
    lines = [line(["system", "against", "changed clips"]), "| --- | --- | ---: |"]
    for name, against in ((RESTORE, ASIS), (BOTH, BEST)):
        both = [(outs[key], outs.get((against, *key[1:]))) for key in outs if key[:2] == (name, "nothing")]
        far = [float((a - b).abs().max()) > UNCHANGED for a, b in both if b is not None]
        lines.append(line([name, against, f"{sum(far)} of {len(far)}"]))
    return "\n".join(lines)


# --- pictures, and the shell


def worst(rows: list, found: list[Clip], outs: dict, folder: Path) -> list:
    """Pictures of the clips that ours changes and helps least, or harms, by WB-PESQ: their names."""
    gains, score = [], {(r["system"], r["task"], r["clip"]): r.get("pesq_wb") for r in rows}
    for clip in found:
        now, was = (score.get((name, clip.task, clip.number)) for name in (ours(clip.task), ASIS))
        after = outs.get((ours(clip.task), clip.task, clip.number))
        if clip.task != "nothing" and now is not None and was is not None and not torch.equal(after, clip.damaged):
            gains.append((now - was, len(gains), clip, was, now))
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("worst-*.png"):
        old.unlink()
    names = []
    for k, (_, _, clip, was, now) in enumerate(sorted(gains)[:WORST], start=1):
        names.append(f"{clip.task}, clip {clip.number} ({was:.2f} to {now:.2f})")
        name = ours(clip.task)
        shown = {"before": clip.damaged, f"after {name}": outs[name, clip.task, clip.number], "clean": clip.clean}
        plots.compare(shown, SR, folder / f"worst-{k:02d}.png", f"{names[-1]}, {clip.speaker}")
    return names


def blind(found: list[Clip], outs: dict, folder: Path) -> None:
    """Pictures of gaps filled by one step of the network and by several, A and B in random order, and who is who."""
    for old in folder.glob("blind-*.png"):
        old.unlink()
    rng, key = np.random.default_rng(0), []
    for clip in found:
        ways = [n for n, task, number in outs if "network, " in n and (task, number) == (clip.task, clip.number)]
        if len(ways) < 2:
            continue
        ways = [ways[i] for i in rng.permutation(2)]
        name = f"blind-{len(key):02d}"
        shown = {letter: outs[way, clip.task, clip.number] for letter, way in zip("AB", ways)}
        plots.compare({"damaged": clip.damaged, **shown, "clean": clip.clean}, SR, folder / f"{name}.png", name)
        key.append({"picture": name, "task": clip.task, "clip": clip.number, "A": ways[0], "B": ways[1]})
    write_csv(key, folder / "key.csv")


def from_the_shell(damaged: Tensor) -> dict:
    """Seconds on the clock, and of the processor, that a minute of damaged speech takes from the shell, the start of
    the program included."""
    took = {}
    with tempfile.TemporaryDirectory() as folder:
        save(f"{folder}/minute.wav", damaged.repeat(1, -(-60 * SR // damaged.shape[-1]))[:, : 60 * SR], SR)
        for words in ("restore", "denoise --restore"):
            command = [sys.executable, "-m", "wavelldm", *words.split(), f"{folder}/minute.wav"]
            began, used = time.perf_counter(), processor()
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            took[words] = time.perf_counter() - began, processor() - used
    return took


# --- the script


def write_csv(rows: list, path: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def read(words: list | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--clips", type=int, default=16, help="clips for each task (default: 16)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="only these; writes nothing")
    parser.add_argument("--only", nargs="+", help="only systems whose names hold one of these words; writes nothing")
    parser.add_argument("--quick", action="store_true", help="two clips for each task; writes nothing")
    parser.add_argument("--blind", action="store_true", help="pictures of the network's ways without their names")
    parser.add_argument("--steps", nargs="+", type=int, default=[4], help="of the network, beside one (default: 4)")
    parser.add_argument("--tplcnet", help="the published file tPLCnet_s.tflite")
    parser.add_argument("--latent", default="restore16k-latent", help="other weights of the latent")
    parser.add_argument("--filler", default="restore16k-filler", help="other weights of the filler, over that latent")
    return parser.parse_args(words)


def main(words: list | None = None) -> None:
    args = read(words)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    for name, lack in missing(args).items():
        print(f"not measured, because it lacks {lack}: {name}")
    for name in judges.missing():
        print(f"not asked, because its package is not installed: {name}")
    whole = not (args.only or args.quick or args.tasks != list(TASKS))
    found = clips(args.manifest, 2 if args.quick else args.clips, args.tasks)
    rows, outs = measure(systems(args), found)
    parts = [
        f"""## Restoration

{SECONDS:.0f} s of held-out voices of {source(args.manifest)}, of as many speakers as there are, with held-out noises,
damaged in every way that restoration is asked about; the same for every system, in one run. In brackets where 95 % of
the means of resampled clips lie (bootstrap). The last rows of each table, in italics, are differences clip by clip.
{RESTORE} and {BOTH} look for the damage themselves; rows named "told", plain ways, the network's rows and tPLCNet know
it, and adeclip looks.

WB-PESQ / ESTOI; "ours" is {RESTORE}, and {BOTH} where there is noise, where the plain way and the peer have `{BEST}`
too:

{short(rows, args.tasks)}"""
    ]
    parts += [section(rows, task) for task in args.tasks]
    if "nothing" in args.tasks:
        parts.append(changed(outs))
    if names := worst(rows, found, outs, OUT):
        what = "Of the clips that ours changes, those that it helps least in WB-PESQ, drawn into `out/restore`"
        parts.append(f"{what}: {'; '.join(names)}.")
    if args.blind:
        blind(found, outs, OUT)
    if whole:
        took = from_the_shell(found[0].damaged).items()
        told = ", ".join(f"`{words}` {clock:.1f} s ({used:.1f} s of the processor)" for words, (clock, used) in took)
        parts.append(f"A minute of speech with gaps, from the shell, start of the program included: {told}.")
    asked = [f"--clips {args.clips}"] + ["--tplcnet tPLCnet_s.tflite"] * bool(args.tplcnet)
    parts.append(f"{made_by('restore.py', args.manifest, *asked)}; rows of all clips in `restore.csv`.")
    text = "\n\n".join(parts)
    print(text)
    if whole:
        write_csv(rows, HERE / "restore.csv")
        write_section("restore", text)


if __name__ == "__main__":
    main()
