"""How much better denoisers are on the speech they learnt from than on held-out speech; with held-out noise for both.

python overfit.py [NAME ...] [--manifest TABLE] [--clips 64]

A peer that learnt neither (DeepFilterNet3, if its package is installed) and log-MMSE, which learns nothing, tell
whether one half is harder than the other. Without names: `studio16k` and `base16k`.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the other benchmarks

import cleaners
import denoise
from report import line

from wavelldm.data import corpora, loader
from wavelldm.metrics.differentiable import disturbance, estoi_distance
from wavelldm.training.mask import si_sdr
from wavelldm.training.mixtures import VALID, VALID_SECONDS


def distances(wav: torch.Tensor, clean: torch.Tensor) -> list[float]:
    """wav, clean (1, N)."""
    wav, clean = wav[None], clean[None]
    found = disturbance(wav, clean, denoise.SR), estoi_distance(wav, clean, denoise.SR), si_sdr(wav, clean)
    return [float(value) for value in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["studio16k", "base16k"], help="denoisers, by name or weights")
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--clips", type=int, default=64, help="clips of 4 s from either speech (default: 64)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = {"as it is": lambda noisy, clean: noisy}
    runs |= {name: denoise.enhancer(name) for name in ("logmmse", *args.names)}
    runs |= {name: make() for name, make in cleaners.there({})[0].items() if name == "DeepFilterNet3"}
    corpus, rng = corpora.gather(manifest=args.manifest), np.random.default_rng(0)
    halves = {"training": corpus.speech, "held-out": corpus.valid_speech}
    found = {}
    for half, items in halves.items():
        chosen = [replace(items[i], split="valid") for i in rng.permutation(len(items))[: args.clips]]
        pairs = loader.valid_pairs(chosen, corpus.valid_noise, VALID, denoise.SR, VALID_SECONDS, 1, args.clips)
        with torch.inference_mode():
            for name, run in runs.items():
                rows = [distances(run(n[0], c[0]), c[0]) for n, c in tqdm(pairs, f"{half}, {name}", unit="clip")]
                found[name, half] = np.mean(rows, 0)
    print(line(["", *(f"{what}, {half}" for what in ("disturbance", "ESTOI distance", "SI-SDR") for half in halves)]))
    print("| --- |" + " ---: |" * 6)
    for name in runs:
        values = [found[name, half][k] for k in range(3) for half in halves]
        print(line([name, *(f"{value:.{digits}f}" for value, digits in zip(values, (2, 2, 3, 3, 1, 1)))]))


if __name__ == "__main__":
    main()
