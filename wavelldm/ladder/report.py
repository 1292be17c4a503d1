"""`wavelldm ladder`: all rungs on the same clips; a table, a CSV file, pictures and sounds.

Scores are those of the `metrics` package; where quality is drawn against bits, a float counts as 16 bits.
"""

import csv
import math
import time
from collections import defaultdict
from collections.abc import Iterable
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
PICTURED = 8  # rungs in the picture with spectrograms


@dataclass(frozen=True)
class Row:
    """A rung on one clip."""

    rung: str
    family: str
    clip: str
    bits: float | None  # a second
    floats: float | None
    parameters: int
    rtf: float  # processor seconds per second of sound
    scores: dict


def clips(files: Iterable[str | Path] = (), manifest: str | Path | None = None, number: int = 8) -> list[corpora.Item]:
    """Files and folders given, or held-out speech of a manifest (default: embedded), evenly from its folders."""
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
def score_rung(rung: Rung, item: corpora.Item) -> tuple[Row, torch.Tensor]:
    """One rung on one clip -> its row, the reconstruction (1, N)."""
    wav = audio.load(item.path, rung.sr, mono=True, seconds=LONGEST)[0]  # (1, N)
    began = time.process_time()
    found = rung.run(wav[None], words_of(item))
    rtf = (time.process_time() - began) * rung.sr / wav.shape[-1]
    scores, _ = measure(wav[0].numpy(), found.wav[0, 0].numpy(), rung.sr, SCORES)
    clip = f"{item.path.parent.name}/{item.path.stem}"
    return Row(rung.name, rung.family, clip, found.bits, found.floats, rung.parameters, rtf, scores), found.wav[0]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if known else None


def means(rows: list[Row]) -> list[dict]:
    """One line of means for each rung, in the order of the rows."""
    out = []
    for name in dict.fromkeys((row.family, row.rung) for row in rows):
        mine = [row for row in rows if (row.family, row.rung) == name]
        line = {"rung": name[1], "family": name[0], "clips": len(mine), "parameters": mine[0].parameters}
        line |= {key: _mean([getattr(row, key) for row in mine]) for key in ("bits", "floats", "rtf")}
        out.append(line | {score: _mean([row.scores[score] for row in mine]) for score in SCORES})
    return out


def table(lines: list[dict]) -> str:
    """The means as plain text."""
    head = ["rung", *(METRICS[s].label for s in SCORES), "latent", "parameters", "RTF"]
    rows = [head]
    for line in lines:
        size = f"{line['bits'] / 1000:.2f} kbit/s" if line["bits"] is not None else f"{line['floats']:.0f} floats/s"
        scores = ["-" if line[s] is None else f"{line[s]:.2f}" for s in SCORES]
        rows.append([line["rung"], *scores, size, f"{line['parameters'] / 1e6:.2f} M", f"{line['rtf']:.3f}"])
    return columns(rows)


def picture(lines: list[dict], path: Path) -> None:
    """Draw WB-PESQ and SNR against bits."""
    plt = plots.pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    for ax, score in zip(axes, ("pesq_wb", "snr")):
        for k, family in enumerate(dict.fromkeys(line["family"] for line in lines)):
            mine = [line for line in lines if line["family"] == family and line[score] is not None]
            x = [(line["bits"] if line["bits"] is not None else 16 * line["floats"]) / 1000 for line in mine]
            ax.plot(x, [line[score] for line in mine], "o", ms=5, color=f"C{k}", label=family)
        ax.set(xscale="log", xlabel="kbit/s (a float: 16 bits)", ylabel=METRICS[score].label)
    axes[1].axhline(0, ls="--", color=plots.SOFT, label="silence")
    axes[1].axhline(-10 * math.log10(2), ls=":", color=plots.SOFT, label="unrelated phase")
    axes[0].legend(fontsize=7, frameon=False)
    axes[1].legend(handles=axes[1].lines[-2:], fontsize=7, frameon=False)  # the two levels
    figure.savefig(path)
    plt.close(figure)


def to_csv(rows: list[Row], path: Path) -> None:
    """A line for every rung and clip."""
    head = "family rung clip bits_per_second floats_per_second parameters real_time_factor".split()
    with audio.writing(path, force=True) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*head, *SCORES])
        for r in rows:
            facts = [r.family, r.rung, r.clip, r.bits, r.floats, r.parameters, r.rtf]
            writer.writerow([*facts, *(r.scores[s] for s in SCORES)])


def run(
    files: Iterable[str | Path] = (),
    manifest: str | Path | None = None,
    out: str | Path = "ladder",
    rungs: Iterable[str] | None = None,
    weights: Iterable[str | Path] = (),
    vocoder: str | Path | None = None,
    vae: str | Path | None = None,
    number: int = 8,
    progress: bool = True,
) -> dict:
    """All rungs on the same clips: write OUT/ladder.csv, quality.png, spectrograms.png and the first clip's sounds.

    Returns the means, the roles that were skipped, and the phase experiment.
    """
    items, out = clips(files, manifest, number), Path(out)
    ladder, missing = build(rungs, weights, vocoder, vae, grid_sr=min(audio.info(item.path).sr for item in items))
    rows, sounds = [], {}
    for rung in progress_bar(ladder, progress, desc="ladder", unit="rung"):
        for i, item in enumerate(items):
            row, wav = score_rung(rung, item)
            rows.append(row)
            if i == 0:
                sounds[rung] = wav
    lines = means(rows)
    first, sr = audio.load(items[0].path, 16_000, mono=True, seconds=LONGEST)
    (out / "audio").mkdir(parents=True, exist_ok=True)
    audio.save(out / "audio" / "00 original.wav", first, sr, force=True)
    for k, (rung, wav) in enumerate(sounds.items(), 1):
        name = f"{k:02d} {rung.family}, {rung.name}".replace("/", " per ")
        audio.save(out / "audio" / f"{name}.wav", wav, rung.sr, force=True)
    one_each = {rung.family: rung for rung in sounds if rung.sr == sr}  # the last of each family
    shown = {"original": first} | {r.name: sounds[r] for r in list(one_each.values())[:PICTURED]}
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
    """What `run` returned, for people."""
    p = facts["phase"]
    skipped = [f"skipped, {role}: {why}" for role, why in facts["skipped"].items()]
    physics = (
        f"phase: the same magnitudes with random phases have an SNR of {p['snr']:.2f} dB, "
        f"at the best gain {p['at_best_gain']:.2f} dB; "
        f"no gain passes -10 log10(1 - rho^2), so +5 dB needs rho >= {phase.needed_correlation(5):.2f}"
    )
    count = f"{facts['clips']} clip{'s' * (facts['clips'] > 1)}"
    where = f"{count}; ladder.csv, quality.png, spectrograms.png and audio/ are in {facts['folder']}"
    return "\n".join([table(facts["rungs"]), "", *skipped, physics, where])
