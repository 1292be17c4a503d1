"""Time the loader: seconds of noisy/clean pairs per second, from a folder of wav and one of Opus files; into README.md.

    python benchmarks/loader.py [--manifest TABLE] [--files 600]

Without a manifest it takes the embedded corpus. Two batches are left out of each timing, for the workers to start.
"""

import argparse
import os
import platform
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from report import write_section
from tqdm import tqdm

from wavelldm.audio import files
from wavelldm.data import corpora, loader, voices
from wavelldm.data.clips import Clips
from wavelldm.data.degrade import RECIPES

SR, SECONDS, BATCH = 16_000, 2.0, 16


def copies(items, folder: Path, suffix: str):
    """The same sounds again as another kind of file."""
    for i, item in enumerate(tqdm(items, f"writing {suffix}", delay=2, mininterval=1, leave=False)):
        files.save(folder / f"{i:05d}{suffix}", files.load(item.path, SR, mono=True)[0], SR)
    return corpora.folder(folder)


def straight_from_files(speech, noise, count: int = 300) -> float:
    """How fast it would be without the cache: open, seek and decode a crop of each, no damage done; one thread."""
    rng = np.random.default_rng(0)
    begun = time.perf_counter()
    for _ in range(count):
        for items in (speech, noise):
            path = items[rng.integers(len(items))].path
            room = max(0.0, files.info(path).seconds - SECONDS)
            files.load(path, SR, start=rng.uniform(0, room), seconds=SECONDS)
    return count * SECONDS / (time.perf_counter() - begun)


def from_loader(speech, noise, recipe, workers: int, steps: int = 60) -> float:
    found = loader.batches(speech, noise, RECIPES[recipe], SR, SECONDS, BATCH, workers=workers)
    for _ in islice(found, 2 + 2 * workers):  # beyond what the workers made ahead while they started
        pass
    begun = time.perf_counter()
    for _ in islice(found, steps):
        pass
    return steps * BATCH * SECONDS / (time.perf_counter() - begun)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv with speech and noise (default: the embedded corpus)")
    parser.add_argument("--files", type=int, default=600, help="at most this many files of each kind (default: 600)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lists = corpora.read_manifest(args.manifest or voices.build_corpus())
    order = np.random.default_rng(0).permutation
    speech, noise = ([items[i] for i in order(len(items))[: args.files]] for items in lists)
    lines = [
        "| files | straight from files | decoding, once | recipe | no workers | 2 workers |",
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".wav", ".opus"):
            kinds = [
                copies(items, Path(folder) / suffix / name, suffix)
                for name, items in (("speech", speech), ("noise", noise))
            ]
            straight = straight_from_files(*kinds)
            begun = time.perf_counter()
            clips = [Clips(items, SR, Path(folder) / "cache") for items in kinds]
            took = time.perf_counter() - begun
            seconds = sum(c.seconds for c in clips)
            for recipe in ("noise", "wavelldm", "everything"):
                rates = " | ".join(f"{from_loader(*clips, recipe, workers):,.0f} ×" for workers in (0, 2))
                lines.append(f"| {suffix[1:]} | {straight:,.0f} × | {seconds / took:,.0f} × | {recipe} | {rates} |")
                print(lines[-1])
    source = "the files of a manifest" if args.manifest else "the embedded corpus"
    text = f"""## Loader

Seconds of noisy/clean pairs per second of waiting (× real time): 16 kHz, batches of {BATCH} × {SECONDS:g} s, {source}
({len(speech)} of speech, {len(noise)} of noise, {seconds / 60:.0f} minutes), {os.cpu_count()} CPU cores. "Straight from
files" opens, seeks and decodes for each crop and adds no noise or damage; the loader decodes once into
a memory-mapped cache.

{chr(10).join(lines)}

Python {platform.python_version()}, torch {torch.__version__}. Made by `python benchmarks/loader.py\
{" --manifest manifest.tsv" if args.manifest else ""}`."""
    write_section("loader", text)


if __name__ == "__main__":
    main()
