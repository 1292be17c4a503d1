"""Measure how well `wavelldm.restore.find` finds lost stretches and missing bands, and that it leaves whole recordings
alone.

    python benchmarks/find.py [--manifest TABLE] [--clips 40] [--untouched 12]

Without a manifest it takes the held-out voices and noises of the embedded corpus. The tables are printed, and written
into README.md.
"""

import argparse
import io
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
import torch
from denoise import SR
from report import line, made_by, source, write_section

from wavelldm.data import corpora, degrade, voices
from wavelldm.data.clips import Clips
from wavelldm.restore.find import Damage, find

SECONDS = 8.0  # of a clip, at most
SNR = 15.0  # dB
LENGTHS = {"20 to 60 ms": (0.02, 0.06), "50 to 450 ms": (0.05, 0.45)}
GAPS = 4  # of a clip of 8 s
CUTOFFS = (3_400.0, 4_000.0, 5_000.0, 6_000.0, 6_800.0)
AUDIBLE = -30.0  # dB of the level of active speech that a lost stretch has at least, to be missed
COVERED = 0.5  # share of the union of a true and a found gap that both hold, at least

# --- sounds


def speech_and_noise(manifest: str | None, count: int) -> tuple[list, list]:
    """Held-out speech, one recording (N,) of each speaker first, long ones first; and the same with noise."""
    table = manifest or voices.build_corpus()
    speech, noise = (Clips(corpora.read_manifest(table, "valid", (k,))[0], SR) for k in ("speech", "noise"))
    seen, order, most = {}, [], round(SECONDS * SR)
    for i in speech.audible.tolist():
        label = speech.items[i].label
        turn = seen[label] = seen.get(label, -1) + 1
        order.append((speech.lengths[i] < most // 2, turn, i))
    clean = [as_float(speech.rows(i))[:most] for *_, i in sorted(order)[:count]]
    noisy = []
    for i, wav in enumerate(clean):
        around = noise.crop(len(wav), np.random.default_rng(i), loop=True)[0].numpy()
        noisy.append(wav + around * 10 ** (-SNR / 20) * np.sqrt(active(wav) / np.square(around).mean().clip(1e-12)))
    return clean, noisy


def as_float(rows: np.ndarray) -> np.ndarray:
    """int16 (1, N) -> (N,)"""
    return rows[0].astype(np.float32) / 32768


def active(wav: np.ndarray) -> float:
    """Mean square of the frames of 20 ms that are no more than 40 dB below the loudest."""
    size = round(0.02 * SR)
    power = np.square(wav[: len(wav) // size * size].reshape(-1, size)).mean(1)  # (frames,)
    return float(power[power > 1e-4 * power.max()].mean())


def stored(wav: np.ndarray) -> torch.Tensor:
    """(N,) -> (1, N), as a file of 16 bits holds it."""
    return torch.from_numpy(np.round(wav * 32768).clip(-32768, 32767).astype(np.float32) / 32768)[None]


def white(speech: np.ndarray) -> np.ndarray:
    sound = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    return sound * 10 ** (-SNR / 20) * np.sqrt(active(speech))


def coded(wav: np.ndarray) -> np.ndarray:
    """(N,) through MP3 of low quality."""
    file = io.BytesIO()
    soundfile.write(file, wav, SR, format="MP3", compression_level=0.8)
    return soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0]


# --- gaps


def fades(n: int) -> np.ndarray:
    """What is left of n samples that fade out and in again within 5 ms."""
    ramp = np.linspace(0, 1, round(0.005 * SR), dtype=np.float32)
    return np.concatenate([ramp[::-1], np.zeros(n - 2 * len(ramp), np.float32), ramp])


KINDS = {  # of what came before (any,) and what is lost (n,), what stands instead (n,)
    "digital silence": lambda before, lost: 0 * lost,
    "one value held": lambda before, lost: 0 * lost + before[-1],
    "silence with fades of 5 ms": lambda before, lost: lost * fades(len(lost)),
    "noise at -60 dB": lambda before, lost: 1e-3 * np.random.default_rng(0).standard_normal(len(lost)),
    "10 ms repeated, then silence": lambda before, lost: np.pad(before[-160:], (0, len(lost) - 160)),
}


def with_gaps(wav: np.ndarray, fill, seconds: tuple, rng: np.random.Generator) -> tuple[np.ndarray, list]:
    """Gaps at random places, 50 ms apart at least -> the damaged (N,), and (start, end) of each."""
    out, part = wav.copy(), len(wav) // max(1, round(GAPS * len(wav) / (SECONDS * SR)))
    found = []
    for first in range(0, len(wav) - part + 1, part):
        n = round(rng.uniform(*seconds) * SR)
        start = first + int(rng.integers(800, part - n - 800))
        out[start : start + n] = fill(out[:start], wav[start : start + n])
        found.append((start, start + n))
    return out, found


def overlap(a: tuple, b: tuple) -> float:
    """Samples in both over samples in either."""
    both = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return both / (a[1] - a[0] + b[1] - b[0] - both)


def gap_row(fill, seconds: tuple, sounds: list, clean: list) -> list:
    """Share of gaps found among those that took something audible, and among all; false ones in a minute."""
    heard, everything, false, minutes = [], [], 0, 0.0
    for i, (wav, speech) in enumerate(zip(sounds, clean)):
        damaged, gaps = with_gaps(wav, fill, seconds, np.random.default_rng(i))
        found = find(stored(damaged), SR)[0].gaps
        least = active(speech) * 10 ** (AUDIBLE / 10)
        for gap in gaps:
            hit = any(overlap(gap, other) > COVERED for other in found)
            everything.append(hit)
            if np.square(speech[gap[0] : gap[1]]).mean() > least:
                heard.append(hit)
        false += sum(not any(overlap(gap, other) for gap in gaps) for other in found)
        minutes += len(wav) / SR / 60
    return [f"{100 * np.mean(heard):.0f} %", f"{100 * np.mean(everything):.0f} %", f"{false / minutes:.2f}"]


# --- bands


def band(wav: np.ndarray, cutoff: float) -> np.ndarray:
    return degrade.band_limit(torch.from_numpy(wav)[None, None], SR, torch.tensor([cutoff]))[0, 0].numpy()


def band_row(make, clean: list, noisy: list) -> list:
    """make(speech, in noise, cutoff) -> (N,): share found at each cutoff, and the median error of all."""
    shares, errors = [], []
    for cutoff in CUTOFFS:
        found = [find(stored(make(*pair, cutoff)), SR)[0].cutoff for pair in zip(clean, noisy)]
        shares.append(f"{100 * np.mean([f is not None for f in found]):.0f} %")
        errors += [abs(f - cutoff) for f in found if f is not None]
    return [*shares, f"{np.median(errors):.0f}" if errors else ""]


BANDS = {
    "clean": lambda speech, noisy, hz: band(speech, hz),
    "noise, then the cutoff": lambda speech, noisy, hz: band(noisy, hz),
    "clean, then MP3": lambda speech, noisy, hz: coded(band(speech, hz)),
    "noise, then the cutoff, then MP3": lambda speech, noisy, hz: coded(band(noisy, hz)),
    "the cutoff, then white noise (nothing is missing)": lambda speech, noisy, hz: band(speech, hz) + white(speech),
}

# --- nothing


def whole(manifest: str | None, count: int) -> tuple[list, float]:
    """Rows of `count` untouched recordings of each source and split, and the seconds of the processor for a minute."""
    table = Path(manifest or voices.build_corpus())
    rows, took, seconds = [], 0.0, 0.0
    for split in ("valid", "train"):
        clips = Clips(corpora.read_manifest(table, split, ("speech",))[0], SR)
        groups = defaultdict(list)
        for i in np.random.default_rng(0).permutation(clips.audible).tolist():
            groups["/".join(clips.items[i].path.relative_to(table.parent).parent.parts[:2])].append(i)
        for name, members in sorted(groups.items()):
            found: list[Damage] = []
            for i in members[:count]:
                wav = torch.from_numpy(as_float(clips.rows(i)))[None]
                began = time.process_time()
                found += find(wav, SR)
                took, seconds = took + time.process_time() - began, seconds + wav.shape[-1] / SR
            counts = [sum(bool(d.gaps) for d in found)]
            counts += [sum(x is not None for x in xs) for xs in zip(*((d.cutoff, d.ceiling) for d in found))]
            rows.append([f"{name}, {split}", *map(str, [len(found), *counts])])
    return rows, 60 * took / seconds


# --- the script


def table(head: list, rows: list) -> str:
    return "\n".join([line(head), "| --- |" + " ---: |" * (len(head) - 1), *map(line, rows)])


def main(words: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--clips", type=int, default=40, help="damaged clips (default: 40)")
    parser.add_argument("--untouched", type=int, default=12, help="whole recordings of each source (default: 12)")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    clean, noisy = speech_and_noise(args.manifest, args.clips)
    gaps = []
    for name, fill in KINDS.items():
        for where, sounds in (("clean", clean), ("in noise", noisy)):
            cells = [gap_row(fill, seconds, sounds, clean) for seconds in LENGTHS.values()]
            gaps.append([f"{name}, {where}", *sum(cells, [])])
    bands = [[name, *band_row(make, clean, noisy)] for name, make in BANDS.items()]
    rest, cost = whole(args.manifest, args.untouched)
    head = ["gaps", *(f"{x}, {n}" for n in LENGTHS for x in ("audible", "all", "false a minute"))]
    text = f"""## Finding the damage

What `wavelldm.restore.find` finds by itself in {len(clean)} recordings of up to {SECONDS:.0f} s of held-out voices of
{source(args.manifest)}. "In noise": at {SNR:.0f} dB, before the damage. Gaps lie at random places, pauses too. Audible
are those that took speech above {AUDIBLE:.0f} dB of the level of active speech. One is found if it and what was found
share {100 * COVERED:.0f} % of their union.

{table(head, gaps)}

Nothing is left above a cutoff; the share of recordings in which it is found, and the median error.

{table(["bands", *(f"{hz:.0f} Hz" for hz in CUTOFFS), "error in Hz"], bands)}

In recordings that nobody damaged, how many are said to have gaps, a cutoff and a ceiling. Looking took {cost:.2f} s of
the processor for a minute of sound.

{table(["source", "recordings", "gaps", "cutoff", "ceiling"], rest)}

{made_by("find.py", args.manifest, f"--clips {args.clips}", f"--untouched {args.untouched}")}."""
    print(text)
    write_section("find", text)


if __name__ == "__main__":
    main()
