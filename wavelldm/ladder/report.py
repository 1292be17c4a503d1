"""`wavelldm ladder`: every rung from Griffin-Lim to keeping phase, on the same clips; table, CSV, pictures and sounds.

The scores of a clip are those of `metrics`; a float counts as 16 bits where quality is drawn against bits."""

import csv
import math
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import audio, plots
from ..data import corpora, voices
from ..errors import DataError
from ..mel.vae import words_of
from ..metrics.folders import columns
from ..metrics.scores import METRICS, measure
from ..progress import progress_bar
from . import phase
from .rungs import Rung, build

SCORES = ("snr", "si_sdr", "correlation", "pesq_wb", "stoi", "lsd", "spectral_convergence", "mel_distance")
LONGEST = 12.0  # seconds of a clip; the rest is cut off
PICTURED = 8  # rungs in the picture of spectrograms


@dataclass(frozen=True)
class Row:
    """A rung on one clip."""

    rung: str
    family: str
    clip: str
    bits: float | None
    floats: float | None
    parameters: int
    rtf: float
    scores: dict


def clips(files=(), manifest=None, number: int = 8) -> list[corpora.Item]:
    """Files and folders given, or held-out speech of a manifest (by default of the embedded corpus), spread evenly over its sources."""
    if number < 1:
        raise DataError(f"the number of clips is at least 1, not {number}")
    if files and manifest:
        raise DataError("give files or a manifest, not both")
    if files:
        return [corpora.Item(path) for name in files for path in audio.sound_files(name).values()][:number]
    (items,) = corpora.read_manifest(manifest or voices.build_corpus(), "valid", ("speech",))
    groups = defaultdict(list)
    for item in items:
        if 2 <= audio.info(item.path).seconds <= LONGEST:
            groups[item.path.parent.name].append(item)
    if not groups:
        raise DataError(f"no held-out speech is 2 to {LONGEST:g} s long; name files instead")
    turn = [group[i] for i in range(max(map(len, groups.values()))) for group in groups.values() if i < len(group)]
    return turn[:number]


@torch.no_grad()
def climb(rung: Rung, item: corpora.Item) -> tuple[Row, torch.Tensor]:
    """One rung on one clip -> its row, what is left (1, N)."""
    wav = audio.load(item.path, rung.sr, mono=True, seconds=LONGEST)[0]  # (1, N)
    began = time.process_time()
    left = rung.run(wav[None], words_of(item))
    took = time.process_time() - began
    scores, _ = measure(wav[0].numpy(), left.wav[0, 0].numpy(), rung.sr, SCORES)
    clip = f"{item.path.parent.name}/{item.path.stem}"
    return Row(
        rung.name, rung.family, clip, left.bits, left.floats, rung.parameters, took * rung.sr / wav.shape[-1], scores
    ), left.wav[0]


def _mean(values):
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if known else None


def means(rows: list[Row]) -> list[dict]:
    """One line for each rung, in their order."""
    out = []
    for name in dict.fromkeys((row.family, row.rung) for row in rows):
        mine = [row for row in rows if (row.family, row.rung) == name]
        line = {"rung": name[1], "family": name[0], "clips": len(mine), "parameters": mine[0].parameters}
        line |= {key: _mean([getattr(row, key) for row in mine]) for key in ("bits", "floats", "rtf")}
        out.append(line | {score: _mean([row.scores[score] for row in mine]) for score in SCORES})
    return out


def table(lines: list[dict]) -> str:
    head = ["rung", *(METRICS[s].label for s in SCORES), "latent", "parameters", "RTF"]
    rows = [head]
    for line in lines:
        size = f"{line['bits'] / 1000:.2f} kbit/s" if line["bits"] is not None else f"{line['floats']:.0f} floats/s"
        scores = ["-" if line[s] is None else f"{line[s]:.2f}" for s in SCORES]
        rows.append([line["rung"], *scores, size, f"{line['parameters'] / 1e6:.2f} M", f"{line['rtf']:.3f}"])
    return columns(rows)


def picture(lines: list[dict], path: Path) -> None:
    """WB-PESQ and SNR against bits."""
    plt = plots.pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    for ax, score in zip(axes, ("pesq_wb", "snr")):
        for k, family in enumerate(dict.fromkeys(line["family"] for line in lines)):
            mine = [line for line in lines if line["family"] == family and line[score] is not None]
            x = [(line["bits"] if line["bits"] is not None else 16 * line["floats"]) / 1000 for line in mine]
            ax.plot(x, [line[score] for line in mine], "o", ms=5, color=f"C{k}", label=family)
        ax.set(xscale="log", xlabel="kbit/s (a float: 16 bits)", ylabel=METRICS[score].label)
    for snr, label in ((0, "silence"), (-10 * math.log10(2), "unrelated phase")):
        axes[1].axhline(snr, ls=":", color=plots.SOFT)
        axes[1].text(
            0.99,
            snr,
            label,
            transform=axes[1].get_yaxis_transform(),
            ha="right",
            va="bottom",
            fontsize=7,
            color=plots.SOFT,
        )
    axes[0].legend(fontsize=7, frameon=False)
    figure.savefig(path)
    plt.close(figure)


def to_csv(rows: list[Row], path: Path) -> None:
    with audio.writing(path, force=True) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            [
                "family",
                "rung",
                "clip",
                "bits_per_second",
                "floats_per_second",
                "parameters",
                "real_time_factor",
                *SCORES,
            ]
        )
        for r in rows:
            writer.writerow(
                [r.family, r.rung, r.clip, r.bits, r.floats, r.parameters, r.rtf, *(r.scores[s] for s in SCORES)]
            )


def run(
    files=(),
    manifest=None,
    out="ladder",
    rungs=None,
    weights=(),
    vocoder=None,
    vae=None,
    number: int = 8,
    progress: bool = True,
) -> dict:
    """Climb the ladder on the same clips; write OUT/ladder.csv, quality.png, spectrograms.png and sounds of the first clip. Returns the figures."""
    items, out = clips(files, manifest, number), Path(out)
    ladder, missing = build(rungs, weights, vocoder, vae, grid_sr=min(audio.info(item.path).sr for item in items))
    rows, heard = [], {}
    for rung in progress_bar(ladder, progress, desc="climbing", unit="rung"):
        for i, item in enumerate(items):
            row, wav = climb(rung, item)
            rows.append(row)
            if i == 0:
                heard[rung] = wav
    lines = means(rows)
    first, sr = audio.load(items[0].path, 16_000, mono=True, seconds=LONGEST)
    (out / "audio").mkdir(parents=True, exist_ok=True)
    audio.save(out / "audio" / "00 original.wav", first, sr, force=True)
    for k, (rung, wav) in enumerate(heard.items(), 1):
        name = f"{k:02d} {rung.family}, {rung.name}".replace("/", " per ")
        audio.save(out / "audio" / f"{name}.wav", wav, rung.sr, force=True)
    one_each = {rung.family: rung for rung in heard if rung.sr == sr}  # the highest of each family
    shown = {"original": first} | {r.name: heard[r] for r in list(one_each.values())[:PICTURED]}
    plots.compare(shown, sr, out / "spectrograms.png")
    picture(lines, out / "quality.png")
    to_csv(rows, out / "ladder.csv")
    return {
        "folder": str(out),
        "clips": len(items),
        "rungs": lines,
        "skipped": missing,
        "phase": phase.experiment(first[None]),
    }


def text(facts: dict) -> str:
    p = facts["phase"]
    skipped = [f"skipped, {role}: {why}" for role, why in facts["skipped"].items()]
    physics = (
        f"phase: the same magnitudes under random phases have an SNR of {p['snr']:.2f} dB, at the best gain {p['at_best_gain']:.2f} dB; "
        f"no gain passes -10 log10(1 - rho^2), so +5 dB needs rho >= {phase.needed_correlation(5):.2f}"
    )
    where = f"{facts['clips']} clip{'s' * (facts['clips'] > 1)}; ladder.csv, quality.png, spectrograms.png and audio/ are in {facts['folder']}"
    return "\n".join([table(facts["rungs"]), "", *skipped, physics, where])
