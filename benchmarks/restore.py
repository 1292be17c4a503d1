"""Measure what brings back lost speech: gaps, lost packets, missing bands, clipping, rooms; every system on the same
damaged clips, in the same run.

    python benchmarks/restore.py [--manifest TABLE] [--clips 16] [--tasks NAME ...] [--only NAME ...] [--quick]
    [--tplcnet FILE] [--latent WEIGHTS] [--filler WEIGHTS]

Without a manifest it takes the held-out voices and noises of the embedded corpus. Peers run if they are at hand:
tPLCNet (a file, and the package ai-edge-litert), ffmpeg's adeclip (imageio-ffmpeg), nara-wpe. What is missing is named.
The ten worst clips are drawn into out/restore.
"""

import argparse
import csv
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import judges
import numpy as np
import peers
import torch
from damaged import TASKS, Clip, clips
from denoise import HERE, SECONDS, SR, enhancer
from report import ROOT, line, made_by, source, write_section
from scipy.interpolate import CubicSpline
from torch import Tensor
from tqdm import tqdm

from wavelldm import plots, weights
from wavelldm.audio.files import save
from wavelldm.audio.stft import istft, magnitude, stft
from wavelldm.denoise.restore import patch
from wavelldm.restore.filler import Filler, fill
from wavelldm.restore.gaps import FREE, HOP, N_FFT, assemble, known_share, rung_on, spectrum, straight
from wavelldm.restore.latent import UNIT, SpeechLatent, heard_pitch, level, seen

OUT = ROOT / "out" / "restore"
ASIS, PLAIN = "as it is", "plain"
OURS = "base16k, --restore"
MIRROR_DB = -24.0  # of a mirrored band against its original
WORST = 10
UNCHANGED = 1e-4  # samples that differ by less count as they were
GAPS = ("gaps", "gaps, noise", "packets")
BANDS = ("band", "band, noise")
CLIPPED = tuple(name for name in TASKS if name.startswith("clipping")) + ("overload",)
PLAINLY = {  # what the plain row is
    **dict.fromkeys(GAPS, "log-magnitudes on straight lines across the gap, phases by 32 rounds of Griffin-Lim"),
    **dict.fromkeys(BANDS, f"the band below the cutoff mirrored at it, {-MIRROR_DB:.0f} dB lower"),
    **dict.fromkeys(CLIPPED, "a cubic spline through what is not clipped"),
    "room": "nara-wpe",
    "cuts and band": "straight lines and Griffin-Lim, and the band mirrored",
}
Run = Callable[[Tensor, Clip], Tensor]  # damaged (1, N), and the clip it is -> (1, N)


# --- what needs no training


def straight_lines(damaged: Tensor, clip: Clip, rounds: int = 32) -> Tensor:
    free = (known_share(clip.gaps) < FREE)[:, None]
    size, now = straight(damaged, clip.gaps), stft(damaged, N_FFT, HOP, N_FFT, "center")
    turn = 2 * torch.pi * torch.rand(size.shape, generator=torch.Generator().manual_seed(0))
    spec = torch.where(free, torch.polar(size, turn), now)
    for _ in range(rounds):
        out = torch.where(clip.gaps, istft(spec, N_FFT, HOP, N_FFT, "center", damaged.shape[-1]), damaged)
        now = stft(out, N_FFT, HOP, N_FFT, "center")
        spec = torch.where(free, size * now / magnitude(now.real, now.imag), now)
    return out


def mirrored(damaged: Tensor, clip: Clip) -> Tensor:
    spec = stft(damaged, N_FFT, HOP, N_FFT, "center")  # (1, 513, T)
    edge = round(0.95 * clip.cutoff / SR * N_FFT)  # the filter begins below the cutoff
    count = min(edge, spec.shape[1] - edge)
    spec[:, edge : edge + count] += 10 ** (MIRROR_DB / 20) * spec[:, edge - count : edge].flip(1).conj()
    return istft(spec, N_FFT, HOP, N_FFT, "center", damaged.shape[-1])


def spline(damaged: Tensor, clip: Clip) -> Tensor:
    """Through every sample below the ceiling (the largest magnitude there is); never less than it, at most twice."""
    x = damaged[0].double().numpy()
    top = np.abs(x).max()
    cut = np.abs(x) >= 0.999 * top
    places = np.arange(len(x))
    y = np.sign(x) * np.clip(np.abs(CubicSpline(places[~cut], x[~cut])(places)), top, 2 * top)
    return torch.from_numpy(np.where(cut, y, x)).float()[None]


def plain(damaged: Tensor, clip: Clip) -> Tensor:
    if clip.task == "room":
        return peers.weighted_prediction(damaged)
    if clip.task in CLIPPED:
        return spline(damaged, clip)
    if clip.gaps is not None:
        damaged = straight_lines(damaged, clip)
    return damaged if clip.cutoff is None else mirrored(damaged, clip)


# --- ours


def filling(steps: int, latent: str | None = None, filler: str | None = None) -> Run:
    """Gaps filled by `wavelldm.restore`, told where they are."""
    networks = [weights.load(path, kind) if path else None for path, kind in ((latent, SpeechLatent), (filler, Filler))]
    return lambda damaged, clip: fill(*networks, damaged, clip.gaps, steps)


def put(damaged: Tensor, clip: Clip, size: Tensor) -> Tensor:
    """Magnitudes put where they are missing."""
    if clip.cutoff is None:
        return assemble(damaged, clip.gaps, size)
    spec = stft(damaged, N_FFT, HOP, N_FFT, "center")
    wanted = istft(torch.polar(size, spec.angle()), N_FFT, HOP, N_FFT, "center", damaged.shape[-1])
    return patch(damaged, wanted, torch.zeros_like(damaged, dtype=torch.bool), clip.cutoff, SR)


def decoded(latent: str) -> Run:
    network = weights.load(latent, SpeechLatent)

    def run(damaged: Tensor, clip: Clip) -> Tensor:
        gain = level(clip.clean)
        z, _ = network.encode(seen(clip.clean * gain))
        return put(damaged, clip, network.decode(z, heard_pitch(clip.clean * gain)).exp() * UNIT / gain[..., None])

    return run


def cleaned_first(run: Run) -> Run:
    """base16k, what was lost cut out again, then `run`."""
    clean = enhancer("base16k")

    def both(damaged: Tensor, clip: Clip) -> Tensor:
        cleaned = clean(damaged, clip.clean)
        return run(cleaned if clip.gaps is None else cleaned.masked_fill(clip.gaps, 0.0), clip)

    return both


def cleaned_afterwards(run: Run) -> Run:
    clean = enhancer("base16k")
    return lambda damaged, clip: clean(run(damaged, clip), clip.clean)


# --- the list


def systems(args: argparse.Namespace) -> dict:
    """name -> (tasks, function that builds a Run)."""
    rows, every = {}, tuple(TASKS)

    def add(name: str, tasks: tuple, make: Callable[[], Run], order: Callable = cleaned_first) -> None:
        """In noise, with base16k before or after it."""
        if quiet := tuple(t for t in tasks if not TASKS[t].noisy):
            rows[name] = (quiet, make)
        if noisy := tuple(t for t in tasks if TASKS[t].noisy):
            title = f"base16k, then {name}" if order is cleaned_first else f"{name}, then base16k"
            rows[title] = (noisy, lambda: order(make()))

    wpe = importlib.util.find_spec("nara_wpe")
    plainly = tuple(t for t in PLAINLY if t != "room" or wpe)
    rows[ASIS] = (every, lambda: lambda damaged, clip: damaged)
    rows[PLAIN] = (plainly, lambda: plain)
    base, restoring = enhancer("base16k"), enhancer("base16k", restore=True)
    rows["base16k"] = (every, lambda: lambda damaged, clip: base(damaged, clip.clean))
    add(PLAIN, ("gaps, noise", "band, noise", "cuts and band"), lambda: plain)
    add(PLAIN, tuple(t for t in ("overload", "room") if t in plainly), lambda: plain, cleaned_afterwards)
    add("ringing on", GAPS, lambda: lambda damaged, clip: rung_on(damaged, clip.gaps))
    add("straight lines, ringing on and Griffin-Lim", GAPS, lambda: filling(0))
    if args.filler:
        add("network, one step", GAPS, lambda: filling(1, args.latent, args.filler))
        for steps in args.steps:
            add(f"network, {steps} steps", GAPS, lambda steps=steps: filling(steps, args.latent, args.filler))
    rows[OURS] = (every, lambda: lambda damaged, clip: restoring(damaged, clip.clean))

    if not args.tplcnet or not importlib.util.find_spec("ai_edge_litert"):
        print("not measured, because its file (--tplcnet) or the package ai-edge-litert is not at hand: tPLCNet")
    else:

        def concealment() -> Run:
            conceal = peers.tplcnet(args.tplcnet)
            return lambda damaged, clip: conceal(damaged, clip.gaps)

        add("tPLCNet", GAPS, concealment)
        rows["tPLCNet"] = (GAPS, concealment)
    if not peers.ffmpeg():
        print("not measured, because ffmpeg is not installed: adeclip")
    else:

        def declip() -> Run:
            run = peers.adeclip(SR)
            return lambda damaged, clip: run(damaged)

        add("adeclip (ffmpeg)", CLIPPED, declip, cleaned_afterwards)
        rows["adeclip (ffmpeg)"] = (CLIPPED, declip)
    if not wpe:
        print("not measured, because its package is not installed: nara-wpe")

    known = (*GAPS, *BANDS)
    if args.latent:
        add("ceiling: the clean latent, decoded", known, lambda: decoded(args.latent))
    add("ceiling: true magnitudes", known, lambda: lambda damaged, clip: put(damaged, clip, spectrum(clip.clean)))
    kept = {}
    for name, (tasks, make) in rows.items():
        tasks = tuple(t for t in tasks if t in args.tasks)
        if tasks and (not args.only or any(o in name for o in args.only)):
            kept[name] = (tasks, make)
    return kept


# --- measuring


def processor() -> float:
    """Seconds of this process and of those that it waited for."""
    return sum(os.times()[:4])


def measure(makers: dict, found: list) -> tuple[list, dict]:
    """A row for every system and clip, and what they made: (system, task, number) -> (1, N)."""
    rows, outs = [], {}
    with ProcessPoolExecutor(cores()) as pool, torch.inference_mode():
        for name, (tasks, make) in tqdm(makers.items(), "measuring", unit="system"):
            run, mine, jobs = make(), [c for c in found if c.task in tasks], []
            for clip in mine:
                began = processor()
                out = run(clip.damaged, clip)
                cost = (processor() - began) / SECONDS
                outs[name, clip.task, clip.number] = out
                jobs.append((clip.clean[0].numpy(), out[0].numpy(), SR, TASKS[clip.task].scores, clip.cutoff))
                rows.append({"task": clip.task, "system": name, "clip": clip.number, "speaker": clip.speaker})
                rows[-1]["cost"] = cost
            for row, scores in zip(rows[-len(jobs) :], pool.map(judges.score, jobs, chunksize=4)):
                row |= scores
    return rows, outs


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def column(rows: list, task: str, system: str, name: str) -> list:
    return [r.get(name) for r in rows if r["task"] == task and r["system"] == system]


def in_task(rows: list, task: str) -> list:
    return list(dict.fromkeys(r["system"] for r in rows if r["task"] == task))


def pairs(names: list) -> list:
    """(system, what it is compared with): the plain way, in noise after base16k; several steps with one."""
    found = []
    for name in names:
        before = "base16k, then " if name.startswith("base16k, then ") else ""
        one = f"{before}network, one step"
        if name.endswith("steps") and one in names:
            found.append((name, one))
        against = next(
            (n for n in (f"base16k, then {PLAIN}", f"{PLAIN}, then base16k", PLAIN, ASIS) if n in names), None
        )
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
    for name, against in pairs(names):
        both = [[column(rows, task, n, s) for n in (name, against)] for s in scores]
        cells = [judges.cell(judges.differences(*b), s, signed=True) for b, s in zip(both, scores)]
        lines.append(line([f"*{name} - {against}*", *cells, ""]))
    return "\n".join(lines)


def section(rows: list, task: str) -> str:
    count = len({r["clip"] for r in rows if r["task"] == task})
    plainly = f" Plain: {PLAINLY[task]}." if task in PLAINLY else ""
    return f"### {task[0].upper()}{task[1:]}\n\n{count} clips. {TASKS[task].caption}{plainly}\n\n{table(rows, task)}"


def changed(found: list, outs: dict) -> str:
    """How many clips with nothing to repair come out otherwise than without restoration."""
    clean = {c.number: c.damaged for c in found if c.task == "nothing"}
    lines = [line(["system", "against", "changed clips"]), "| --- | --- | ---: |"]
    for name, against in ((OURS, "base16k"),):
        if (name, "nothing", 0) in outs and (against, "nothing", 0) in outs:
            far = [float((outs[name, "nothing", k] - outs[against, "nothing", k]).abs().max()) for k in clean]
            lines.append(line([name, against, f"{sum(f > UNCHANGED for f in far)} of {len(far)}"]))
    return "\n".join(lines)


def worst(rows: list, found: list, outs: dict, folder: Path) -> list:
    """Pictures of the clips where ours gains least, or loses, against the damaged sound (WB-PESQ): their names."""
    gains = []
    for clip in found:
        if clip.task == "nothing" or (OURS, clip.task, clip.number) not in outs:
            continue
        ours, was = (
            next(r for r in rows if (r["system"], r["task"], r["clip"]) == (name, clip.task, clip.number)).get(
                "pesq_wb"
            )
            for name in (OURS, ASIS)
        )
        if ours is not None and was is not None:
            gains.append((ours - was, len(gains), clip, was, ours))
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("worst-*.png"):
        old.unlink()
    names = []
    for k, (_, _, clip, was, ours) in enumerate(sorted(gains)[:WORST], start=1):
        names.append(f"{clip.task}, clip {clip.number} ({was:.2f} to {ours:.2f})")
        shown = {"before": clip.damaged, f"after: {OURS}": outs[OURS, clip.task, clip.number], "clean": clip.clean}
        plots.compare(shown, SR, folder / f"worst-{k:02d}.png", f"{names[-1]}, {clip.speaker}")
    return names


def from_the_shell(damaged: Tensor) -> dict:
    """Seconds that a minute of damaged speech takes from the shell, the start of the program included."""
    with tempfile.TemporaryDirectory() as folder:
        whole = damaged.repeat(1, -(-60 * SR // damaged.shape[-1]))[:, : 60 * SR]
        save(f"{folder}/minute.wav", whole, SR)
        took = {}
        for words in ("denoise", "denoise --restore"):
            command = [sys.executable, "-m", "wavelldm", *words.split(), f"{folder}/minute.wav", "--force"]
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            took[words] = time.perf_counter() - began
    return took


def write_csv(rows: list, path: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def read(words: list | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--clips", type=int, default=16, help="clips for each task (default: 16)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="only these")
    parser.add_argument("--only", nargs="+", help="only systems whose names hold one of these words")
    parser.add_argument("--quick", action="store_true", help="two clips for each task")
    parser.add_argument("--tplcnet", help="the published file tPLCnet_s.tflite")
    parser.add_argument("--latent", help="weights of a latent for generating")
    parser.add_argument("--filler", help="weights of a filler over that latent")
    parser.add_argument("--steps", nargs="+", type=int, default=[4], help="of the filler, beside one (default: 4)")
    args = parser.parse_args(words)
    if args.filler and not args.latent:
        parser.error("a filler needs its latent: give --latent too")
    return args


def main(words: list | None = None) -> None:
    args = read(words)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    whole = not (args.only or args.quick or args.tasks != list(TASKS))
    found = clips(args.manifest, 2 if args.quick else args.clips, args.tasks)
    rows, outs = measure(systems(args), found)
    names = worst(rows, found, outs, OUT)
    shell = from_the_shell(found[0].damaged) if whole else {}
    asked = [f"--clips {args.clips}", *(f"--{o} FILE" for o in ("tplcnet", "latent", "filler") if getattr(args, o))]
    text = f"""## Restoration

{SECONDS:.0f} s each of held-out voices of {source(args.manifest)}, each speaker's first, with held-out noises, damaged in
every way that restoration is asked about; the same for every system, in one run. In brackets where 95 % of the means
of resampled clips lie (bootstrap); the last rows of each table, in italics, are differences clip by clip. "Plain"
and "ceiling" rows, and the other rows without `--restore`, are told what is lost; `--restore` finds it.

{(chr(10) * 2).join(section(rows, task) for task in args.tasks)}

{changed(found, outs) if "nothing" in args.tasks else ""}

Ten clips where `{OURS}` gains least in WB-PESQ, drawn into `out/restore`: {"; ".join(names)}.

{"From the shell, a minute of speech with gaps: " + ", ".join(f"`{k}` {v:.1f} s" for k, v in shell.items()) + "." if shell else ""}

{made_by("restore.py", args.manifest, *asked)}; rows of all clips in `restore.csv`."""
    print(text)
    if not whole:  # a look, not the benchmark
        return
    write_csv(rows, HERE / "restore.csv")
    write_section("restore", text)


if __name__ == "__main__":
    main()
