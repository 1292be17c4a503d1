"""Measure the denoisers beside what they are made of, beside plain predictors and beside other programs; same clips,
same run.

    python benchmarks/denoise.py [--manifest TABLE] [--clips 12] [--only NAME ...] [--latent WEIGHTS ...] [--alone
    WEIGHTS] [--guided WEIGHTS] [--gtcrn FILE] [--ulunas FILE]

`--clips` is per signal-to-noise ratio, and per kind of other damage. Without a manifest it takes the held-out voices
and noises of the embedded corpus. Peers run if their packages are installed, or their files are given, see
`cleaners.py`. What is missing is named.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import cleaners
import judges
import numpy as np
import torch
from report import FRONT, line, made_by, source, write_section
from tqdm import tqdm

from wavelldm import plots, weights
from wavelldm.audio import files
from wavelldm.codec.model import Codec
from wavelldm.data import corpora, examples, loader, voices
from wavelldm.data.degrade import Degradation
from wavelldm.denoise.chain import LEVEL, Settings
from wavelldm.denoise.denoiser import BEST, load, look_at
from wavelldm.denoise.mask import MaskNet
from wavelldm.diffusion.latent import LatentDiffusion
from wavelldm.metrics import scores as metrics
from wavelldm.nn.layers import count_parameters

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that measure
HERE = Path(__file__).parent
SR, SECONDS = 16_000, 5.0
SNRS = (-5.0, 0.0, 2.5, 7.5, 12.5, 17.5)
OTHERS = {  # the second domain: not noise alone
    "a room": Degradation(snr=(12.5, 12.5), reverb=1.0),
    "dropouts": Degradation(snr=(17.5, 17.5), dropout=1.0),
    "a band of 4 kHz": Degradation(snr=(17.5, 17.5), band=1.0, cutoff=(4_000.0, 4_000.0)),
    "overload": Degradation(snr=(17.5, 17.5), clip=1.0),
    "a tune": Degradation(snr=(7.5, 7.5)),  # beside the speech
}
HARMLESS = {  # nothing is to be removed: what comes out should be what went in
    "clean": Degradation(noise=0.0),
    "clean, a narrow band": Degradation(noise=0.0, narrow=1.0, narrow_cutoff=(3_800.0, 3_800.0)),
    "clean, quiet": Degradation(noise=0.0, level_db=(-50.0, -45.0)),
    "hardly any noise": Degradation(snr=(35.0, 35.0)),
}
PER_DAMAGE = ("pesq_wb", "estoi", "dnsmos_ovrl")
SHOWN = ("pesq_wb", "estoi", "si_sdr", "dnsmos_ovrl")  # of these the table of differences tells
PATHS = {"none": "predictor", "bridge": "bridge from the noisy latent", "noise": "diffusion from noise"}
SCORES = ("pesq_wb", "estoi", "stoi", "si_sdr", "lsd", "dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl")


def enhancer(model: str, **settings):
    """What a denoiser, by its name or the path of its weights, makes of a clip."""
    denoiser = load(model)
    return lambda noisy, clean: denoiser.enhance(noisy, SR, Settings(**settings))


def through_codec(codec, which: str):
    """The unrounded latent, decoded: what a perfect diffusion (of the clean), or an idle one (of the noisy), would
    give."""

    def run(noisy, clean):
        wav = {"noisy": noisy, "clean": clean}[which]
        gain = 10 ** ((LEVEL - look_at([noisy], SR).levels[0]) / 20)
        z = codec.encode(gain * wav[None], SR)
        return codec.decode(z, wav.shape[-1])[0] / gain

    return run


def systems(args) -> dict:
    """name -> function (noisy (1, N), clean (1, N)) -> (1, N), built when asked for."""

    def codec(which):
        return lambda: through_codec(weights.load("voice16k", Codec), which)

    rows = {
        "noisy": lambda: lambda noisy, clean: noisy,
        "log-MMSE (ours)": lambda: lambda noisy, clean: load("logmmse").enhance(noisy, SR),
        "noisy through the codec": codec("noisy"),
        "clean through the codec (the ceiling)": codec("clean"),
    }
    for path in args.latent or ():
        kind, trained = weights.load(path, LatentDiffusion).preset.unet.path, weights.about(path)["steps"]
        for steps in (1,) if kind == "none" else (1, 5):
            name = (
                f"{PATHS[kind]}, {trained} training steps, {'one pass' if kind == 'none' else f'DDIM {steps}'}, decoded"
            )
            rows[name] = lambda path=path, steps=steps: enhancer(path, steps=steps)
    for steps in (1, 5):
        rows[f"latent diffusion, DDIM {steps}, decoded"] = lambda steps=steps: enhancer("wavelldm", steps=steps)
    rows["latent diffusion, DDIM 1, rounded to codes, decoded"] = lambda: enhancer("wavelldm", rounded=True)
    if args.alone:
        rows["mask network, alone"] = lambda: enhancer(args.alone)
    if args.guided:
        rows["mask network, guided by one step"] = lambda: enhancer(args.guided)
        rows["mask network, guided by five steps"] = lambda: enhancer(args.guided, steps=5)
    for name in (BEST, "base16k"):
        rows[name] = lambda name=name: enhancer(name)
    peers, lacking = cleaners.there(vars(args))
    if lacking:
        print(f"not measured, because the package is not installed or the file not given: {', '.join(lacking)}")
    rows |= peers
    return {name: make for name, make in rows.items() if not args.only or any(o in name for o in args.only)}


def clips(manifest, count: int) -> list:
    """(what was done to it, noisy (1, N), clean (1, N)): held-out speech and held-out noise, always the same."""
    speech, noise = (
        corpora.read_manifest(manifest or voices.build_corpus(), "valid", (kind,))[0] for kind in ("speech", "noise")
    )
    rng = np.random.default_rng(0)
    recipes = {f"{snr:g} dB": Degradation(snr=(snr, snr)) for snr in SNRS} | OTHERS | HARMLESS
    found = []
    for k, (damage, recipe) in enumerate(recipes.items()):
        chosen = [speech[i] for i in rng.permutation(len(speech))[:count]]
        usual = recipe.level_db == Degradation().level_db
        recipe = replace(recipe, level=1.0, level_db=(-32.0, -20.0) if usual else recipe.level_db)
        with tempfile.TemporaryDirectory() as folder:
            beside = noise if damage != "a tune" else tunes(Path(folder))
            pairs = loader.valid_pairs(chosen, beside, recipe, SR, SECONDS, 1, count, seed=k)
        found += [(damage, n[0], c[0]) for n, c in pairs]
    return found


def tunes(folder: Path, count: int = 6, seconds: float = 12.0) -> list:
    """Made-up music: chords on plucked strings and a melody over them, as recordings in a folder."""
    for k in range(count):
        files.save(folder / f"{k}.wav", *examples.music(seconds, k))
    return corpora.folder(folder)


def score(job) -> dict:
    """All metrics of one result; None where one cannot be had (a PESQ that finds no utterance)."""
    clean, out = job
    row = {}
    for name in SCORES:
        try:
            row[name] = metrics.METRICS[name].function(clean, out, SR)
        except metrics.MetricError:
            row[name] = None
    return row


def average(rows: list, name: str) -> float:
    values = [r[name] for r in rows if r[name] is not None]
    return float(np.mean(values)) if values else float("nan")


def measure(makers: dict, found: list) -> tuple[list, dict]:
    """A row for every system and clip; CPU seconds per second of sound on one thread (the median over clips)."""
    rows, costs = [], {}
    with ProcessPoolExecutor(os.cpu_count()) as pool, torch.inference_mode():
        for name, make in tqdm(makers.items(), "measuring", unit="system"):
            run, outs, took = make(), [], []
            for _, noisy, clean in found:
                began = time.process_time()
                outs.append(run(noisy, clean))
                took.append((time.process_time() - began) / SECONDS)
            costs[name] = float(np.median(took))
            jobs = [(clean[0].numpy(), out[0].numpy()) for (_, _, clean), out in zip(found, outs)]
            for i, (scores, (damage, _, _)) in enumerate(zip(pool.map(score, jobs, chunksize=4), found)):
                rows.append({"system": name, "clip": i, "damage": damage, **scores})
    return rows, costs


def of(rows: list, system: str, damages) -> list:
    return [r for r in rows if r["system"] == system and r["damage"] in damages]


def table(rows: list, costs: dict, memory: dict, damages) -> str:
    head = ["system", *(judges.LABELS[s] for s in SCORES), "CPU s per s", *(["MB"] if memory else [])]
    lines = [line(head), "| --- |" + " ---: |" * (len(head) - 1)]
    for name, cost in costs.items():
        mine = of(rows, name, damages)
        cells = [judges.cell([r[s] for r in mine], s) for s in SCORES]
        lines.append(line([name, *cells, f"{cost:.3f}", *([f"{memory[name]:.0f}"] if memory else [])]))
    return "\n".join(lines)


def against(rows: list, costs: dict, damages) -> str:
    """The best one's differences to the others, clip by clip; nothing if it was not measured."""
    if BEST not in costs:
        return ""
    names = [name for name in costs if name != BEST and not any(word in name for word in ("codec", "decoded"))]
    lines = [line([f"{BEST} less", *(judges.LABELS[s] for s in SHOWN)]), "| --- |" + " ---: |" * len(SHOWN)]
    for name in names:
        pairs = [[[r[s] for r in of(rows, system, damages)] for system in (BEST, name)] for s in SHOWN]
        lines.append(line([name, *(judges.cell(judges.differences(*p), s, True) for p, s in zip(pairs, SHOWN))]))
    return "\n".join(lines)


def worst(rows: list, damages, count: int = 10) -> str:
    """Where the best one gains least in WB-PESQ over the noisy sound, if both were measured."""
    if not {"noisy", BEST} <= {r["system"] for r in rows}:
        return ""
    pairs = zip(of(rows, "noisy", damages), of(rows, BEST, damages), strict=True)
    gains = sorted((b["pesq_wb"] - a["pesq_wb"], a, b) for a, b in pairs if None not in (a["pesq_wb"], b["pesq_wb"]))
    return "; ".join(
        f"clip {a['clip']} ({a['damage']}, {a['pesq_wb']:.2f} to {b['pesq_wb']:.2f})" for _, a, b in gains[:count]
    )


def by_damage(rows: list, costs: dict, damages) -> str:
    """WB-PESQ, ESTOI and DNSMOS under each other, a column for each damage."""
    lines = [line(["system", *damages]), "| --- |" + " ---: |" * len(damages)]
    for name in costs:
        mine = [of(rows, name, [d]) for d in damages]
        cells = ["<br>".join(judges.cell([r[s] for r in found], s) for s in PER_DAMAGE) for found in mine]
        lines.append(line([name, *cells]))
    return "\n".join(lines)


def front(rows: list, costs: dict, damages) -> str:
    """A few rows for the project's README."""
    shown = {
        name: cost
        for name, cost in costs.items()
        if "codec" not in name and "decoded" not in name and "mask network" not in name
    }
    lines = [line(["", "WB-PESQ", "ESTOI", "SI-SDR", "DNSMOS", "CPU s per s"]), "| --- |" + " ---: |" * 5]
    for name, cost in shown.items():
        cells = [judges.cell([r[s] for r in of(rows, name, damages)], s) for s in SHOWN]
        lines.append(line([name, *cells, f"{cost:.3f}"]))
    return "\n".join(lines)


def picture(rows: list, costs: dict, damages, path: Path) -> None:
    plt = plots.pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    hidden = ("noisy", "codec", "decoded", "mask network")
    shown = {name: cost for name, cost in costs.items() if not any(word in name for word in hidden)}
    for ax, score in zip(axes, ("pesq_wb", "estoi")):
        values = {name: average(of(rows, name, damages), score) for name in shown}
        reach = max(values.values()) - min(values.values())
        for name, cost in shown.items():
            ours = name in (BEST, "base16k")
            ax.plot(cost, values[name], "o", color=plots.ACCENT if ours else plots.INK)
            close = [n for n in shown if abs(values[n] - values[name]) < 0.07 * reach and cost < shown[n] < 2 * cost]
            side = {"xytext": (-4, 3), "ha": "right"} if close else {"xytext": (4, 3)}  # away from the next point
            ax.annotate(name.split(":")[0], (cost, values[name]), fontsize=7, textcoords="offset points", **side)
        ax.axhline(average(of(rows, "noisy", damages), score), ls="--", color=plots.SOFT)
        ax.set(xscale="log", xlabel="CPU seconds per second of sound", ylabel=metrics.METRICS[score].label)
        ax.margins(x=0.25, y=0.15)
    figure.savefig(path)
    plt.close(figure)


def file_sizes() -> dict:
    """How large the networks are: ours one by one, and those of the peers that carry theirs along."""
    ours = {
        "codec": ("voice16k", Codec),
        "diffusion": ("voice16k-diffusion", LatentDiffusion),
        "base16k": ("base16k-mask", MaskNet),
        "studio16k": ("studio16k", MaskNet),
    }

    def size(path):
        return f"{Path(path).stat().st_size / 1e6:.1f} MB"

    found = {
        name: f"{size(weights.locate(file))} ({count_parameters(weights.load(file, kind)) / 1e6:.2f} M parameters)"
        for name, (file, kind) in ours.items()
    }
    found |= {name: size(path) for name, path in cleaners.carried(cleaners.there({})[0]).items()}
    return found


def peak(name: str, args) -> float:
    """MB that a process of its own needs at most for a minute of sound."""
    command = [sys.executable, __file__, "--memory", name]
    for option in ("alone", "guided", *map(cleaners.option, cleaners.PUBLISHED)):
        command += [f"--{option}", getattr(args, option)] if getattr(args, option) else []
    command += ["--latent", *args.latent] if args.latent else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[-1])


def own_peak(run) -> float:
    noisy = 0.1 * torch.randn(1, 60 * SR, generator=torch.Generator().manual_seed(0))
    run(noisy, noisy)
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--clips", type=int, default=12, help="clips for each signal-to-noise ratio (default: 12)")
    parser.add_argument(
        "--only", nargs="+", help="only systems whose names hold one of these words; prints, and writes nothing"
    )
    parser.add_argument(
        "--latent", nargs="+", help="weights of other latent U-Nets to compare with (unet.path=none, bridge or noise)"
    )
    parser.add_argument("--alone", help="weights of another mask network without a guide, to compare with")
    parser.add_argument(
        "--guided", help="weights of a mask network that looks at the diffusion's estimate, to compare with"
    )
    for name in cleaners.PUBLISHED:
        parser.add_argument(
            f"--{cleaners.option(name)}", metavar="FILE", help=f"the network {name}, as its authors give it"
        )
    parser.add_argument("--memory", help=argparse.SUPPRESS)  # how this script asks itself, in a process of its own
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory:
        with torch.inference_mode():
            print(own_peak(systems(args)[args.memory]()))
        return
    found = clips(args.manifest, args.clips)
    makers = systems(args)
    rows, costs = measure(makers, found)
    whole = not args.only and Path("/proc/self/status").exists()
    base = peak("noisy", args) if whole else 0.0
    memory = {name: peak(name, args) - base for name in tqdm(makers, "memory", unit="system")} if whole else {}
    sizes = {} if args.only else file_sizes()
    compared = {"--alone WEIGHTS": args.alone, "--guided WEIGHTS": args.guided, "--latent WEIGHTS ...": args.latent}
    others_given = [option for option, given in compared.items() if given]
    usual, hard = ([f"{s:g} dB" for s in SNRS if low <= s <= high] for low, high in ((0, 17.5), (-5, 0)))
    text = f"""## Denoisers

{args.clips} clips of {SECONDS:.0f} s for each of {", ".join(f"{s:g}" for s in SNRS)} dB: held-out voices with
held-out noises of {source(args.manifest)}, the same for every system, in one run. "Decoded": the latent
through the codec's decoder; its phases are new, so SI-SDR says nothing about it. {judges.REACH}
Files: {", ".join(f"{k} {v}" for k, v in sizes.items())}. MB in the table: the most memory of a process for a minute of
sound, beyond one that only reads it. "Mask network" rows, where there are any: other weights of that network, with and
without a diffusion that guides it.

0 to 17.5 dB:

{table(rows, costs, memory, usual)}

-5 and 0 dB:

{table(rows, costs, {}, hard)}

How far {BEST} is ahead, clip by clip; 0 to 17.5 dB:

{against(rows, costs, usual)}

-5 and 0 dB:

{against(rows, costs, hard)}

Where it gains least: {worst(rows, [*usual, *hard])}.

Other damage, {args.clips} clips each: WB-PESQ, ESTOI and DNSMOS OVRL under each other. Room: with noise at
12.5 dB, and the target keeps the first 50 ms of the echoes. A tune: made-up music beside the speech at 7.5 dB, and the
target is the speech alone. The others with noise at 17.5 dB.

{by_damage(rows, costs, OTHERS)}

Nothing to do, {args.clips} clips each: clean speech, clean speech with a band of 3.8 kHz that should stay so, quiet
speech (-50 to -45 dB), and noise at 35 dB. "Noisy" is what goes in.

{by_damage(rows, costs, HARMLESS)}

![Quality against cost at 0 to 17.5 dB; the dashed line is the noisy input](denoise.png)

{made_by("denoise.py", args.manifest, f"--clips {args.clips}", *others_given)};
rows of all clips in `denoise.csv`."""
    print(text)
    if args.only:  # a look, not the benchmark
        return
    picture(rows, costs, usual, HERE / "denoise.png")
    with open(HERE / "denoise.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_section("denoise", text)
    write_section("denoise", front(rows, costs, usual), FRONT)


if __name__ == "__main__":
    main()
